package cli

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"connectrpc.com/connect"

	api "github.com/covey-platform/covey/api/covey/v1/coveyv1connect"
	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/trust"
)

// A DevRecord is what a running covey dev leaves for the commands of its user.
type DevRecord struct {
	URL       string `json:"url"`
	TokenFile string `json:"token_file"`
	PID       int    `json:"pid"`
}

// StateDir is where records of running dev clusters are, below the user's
// state directory.
func StateDir(getenv func(string) string, home string) string {
	return filepath.Join(xdg(getenv, "XDG_STATE_HOME", home, ".local/state"), "covey", "dev")
}

func xdg(getenv func(string) string, name, home, otherwise string) string {
	if d := getenv(name); filepath.IsAbs(d) {
		return d
	}
	return filepath.Join(home, otherwise)
}

// WriteDev leaves the record of a dev cluster in dir, readable by its user.
func WriteDev(dir, cluster string, r DevRecord) error {
	return writeJSON(filepath.Join(dir, cluster+".json"), r)
}

// RemoveDev takes the record away, if it is still that of the process pid.
func RemoveDev(dir, cluster string, pid int) error {
	name := filepath.Join(dir, cluster+".json")
	var r DevRecord
	if err := readJSON(name, &r); err != nil || r.PID != pid {
		return err
	}
	return os.Remove(name)
}

// devs returns the dev clusters that run, by name.
func (a *app) devs() map[string]DevRecord {
	dir := StateDir(a.env.Getenv, a.env.Home)
	files, _ := filepath.Glob(filepath.Join(dir, "*.json"))
	out := map[string]DevRecord{}
	for _, f := range files {
		var r DevRecord
		if readJSON(f, &r) == nil && r.URL != "" && alive(r.PID) {
			out[strings.TrimSuffix(filepath.Base(f), ".json")] = r
		}
	}
	return out
}

func alive(pid int) bool {
	if pid <= 1 {
		return false
	}
	err := syscall.Kill(pid, 0)
	return err == nil || errors.Is(err, syscall.EPERM)
}

// A clusterFile is the clusters that the user named with covey cluster add.
type clusterFile struct {
	Current  string             `json:"current,omitempty"`
	Clusters map[string]cluster `json:"clusters"`
}

type cluster struct {
	Server    string `json:"server"`
	TokenFile string `json:"token_file,omitempty"`
	CAFile    string `json:"ca_file,omitempty"`
}

func (a *app) clusterPath() string {
	return filepath.Join(xdg(a.env.Getenv, "XDG_CONFIG_HOME", a.env.Home, ".config"), "covey", "clusters.json")
}

func (a *app) readClusters() (clusterFile, error) {
	f := clusterFile{Clusters: map[string]cluster{}}
	err := readJSON(a.clusterPath(), &f)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err != nil {
		return f, badParameter("the clusters file %s is not understood: %w; mend it or delete it", a.clusterPath(), err)
	}
	if f.Clusters == nil {
		f.Clusters = map[string]cluster{}
	}
	return f, nil
}

func readJSON(name string, into any) error {
	b, err := readLimited(name, 1<<20)
	if err != nil {
		return err
	}
	return json.Unmarshal(b, into)
}

// readLimited reads a regular file of at most limit bytes.
func readLimited(name string, limit int64) ([]byte, error) {
	info, err := os.Stat(name)
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fault.Invalid.Errorf("%s is no regular file", name)
	case info.Size() > limit:
		return nil, fault.Invalid.Errorf("%s has %d bytes; want at most %d", name, info.Size(), limit)
	}
	return os.ReadFile(name) //nolint:gosec // the user names the file
}

// writeJSON writes a file of the user's own, whole or not at all.
func writeJSON(name string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	if err = os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(name), ".new-*") // 0600
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }()
	if _, err = f.Write(append(b, '\n')); err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}

// reach is a server and what lets the user in.
type reach struct {
	url       string
	tokenFile string
	caFile    string
}

// find decides which server a command goes to. want is the cluster that a job
// key names, or nothing.
func (a *app) find(want string) (reach, error) {
	file, err := a.readClusters()
	if err != nil {
		return reach{}, err
	}
	devs := a.devs()
	if u := first(a.server, a.env.Getenv("COVEY_SERVER")); u != "" {
		r := reach{url: strings.TrimSuffix(u, "/")}
		for _, d := range devs { // its own token, and no other's
			if d.URL == r.url {
				r.tokenFile = d.TokenFile
			}
		}
		for _, c := range file.Clusters {
			if strings.TrimSuffix(c.Server, "/") == r.url {
				r.tokenFile, r.caFile = c.TokenFile, c.CAFile
			}
		}
		return r, nil
	}
	name := first(want, file.Current)
	if name == "" {
		if len(devs) > 1 {
			return reach{}, badParameter("%d dev clusters run here: %s; choose one with covey cluster use NAME or --server URL",
				len(devs), strings.Join(slices.Sorted(maps.Keys(devs)), ", "))
		}
		for n := range devs {
			name = n
		}
	}
	if c, ok := file.Clusters[name]; ok {
		return reach{c.Server, c.TokenFile, c.CAFile}, nil
	}
	if d, ok := devs[name]; ok {
		return reach{url: d.URL, tokenFile: d.TokenFile}, nil
	}
	return reach{}, a.noServer(name, file, devs)
}

func (a *app) noServer(name string, file clusterFile, devs map[string]DevRecord) error {
	if name == "" {
		return exitf(NetworkError, "no server: start one with covey dev, or name one with --server URL, COVEY_SERVER or covey cluster add")
	}
	known := slices.Sorted(maps.Keys(file.Clusters))
	known = append(known, slices.Sorted(maps.Keys(devs))...)
	if len(known) == 0 {
		return exitf(NetworkError, "no server for cluster %s: start one with covey dev --cluster %s, or name one with --server URL, COVEY_SERVER or covey cluster add", name, name)
	}
	return exitf(NetworkError, "no server for cluster %s: start one with covey dev --cluster %s, or covey cluster add %s URL; known are %s", name, name, name, strings.Join(known, ", "))
}

func first(ss ...string) string {
	for _, s := range ss {
		if s != "" {
			return s
		}
	}
	return ""
}

// client speaks to one server.
type client struct {
	servers  *several
	jobs     api.JobServiceClient
	tasks    api.TaskServiceClient
	machines api.MachineServiceClient
	usage    api.UsageServiceClient
	quotas   api.QuotaServiceClient
	cluster  api.ClusterServiceClient
}

// dial finds the server for a cluster and what lets the user in.
func (a *app) dial(want string) (*client, error) {
	r, err := a.find(want)
	if err != nil {
		return nil, err
	}
	token, err := a.token(r)
	if err != nil {
		return nil, err
	}
	return newClient(r.url, token, first(a.caFile, a.env.Getenv("COVEY_CA"), r.caFile))
}

// dialKey reads a job key and finds the server of its cluster.
func (a *app) dialKey(key string) (*client, error) {
	c, _, err := job.ParseKey(key)
	if err != nil {
		return nil, err
	}
	return a.dial(c)
}

// token returns the secret that lets the user in, "" if there is none.
func (a *app) token(r reach) (string, error) {
	if t := a.env.Getenv("COVEY_TOKEN"); t != "" && a.tokenFile == "" {
		return strings.TrimSpace(t), nil
	}
	name := first(a.tokenFile, r.tokenFile)
	if name == "" {
		return "", nil
	}
	b, err := readLimited(name, 4<<10)
	if err != nil {
		return "", exitf(NotAllowed, "cannot read the token: %w", err)
	}
	t := strings.TrimSpace(string(b))
	if t == "" || strings.ContainsAny(t, " \t\r\n") {
		return "", exitf(NotAllowed, "the token file %s does not hold one token", name)
	}
	return t, nil
}

// serverURLs reads the URLs of a cluster's servers, between commas.
func serverURLs(server string) ([]*url.URL, error) {
	var out []*url.URL
	for one := range strings.SplitSeq(server, ",") {
		u, err := url.Parse(strings.TrimSpace(one))
		switch {
		case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || strings.Trim(u.Path, "/") != "":
			return nil, badParameter("server %.200q is no address; want a URL such as http://127.0.0.1:8081, or several with commas between them", one)
		case u.Scheme == "http" && !loopback(u.Hostname()):
			return nil, badParameter("server %.200q is reached over a network; want https://, since http:// is for loopback only", one)
		}
		out = append(out, u)
	}
	return out, nil
}

func newClient(server, token, caFile string) (*client, error) {
	servers, err := serverURLs(server)
	if err != nil {
		return nil, err
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS13}
	if caFile != "" {
		pem, err := readLimited(caFile, 1<<20)
		if err != nil {
			return nil, badParameter("cannot read the certificate: %w", err)
		}
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(pem) {
			return nil, badParameter("%s holds no certificate in PEM form", caFile)
		}
	}
	t := &http.Transport{
		Proxy: nil, TLSClientConfig: conf, ForceAttemptHTTP2: true,
		DialContext:           (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
		TLSHandshakeTimeout:   10 * time.Second,
		ResponseHeaderTimeout: 2 * time.Minute,
	}
	servant := &several{servers: servers, next: trust.Explained{Next: t}, pulse: pulseWait, answer: answerWait}
	h := &http.Client{Transport: bearer{token, newPatient(servant)}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	base := baseOf(servers[0])
	opt := connect.WithReadMaxBytes(64 << 20)
	return &client{
		servers: servant,
		jobs:    api.NewJobServiceClient(h, base, opt), tasks: api.NewTaskServiceClient(h, base, opt),
		machines: api.NewMachineServiceClient(h, base, opt), usage: api.NewUsageServiceClient(h, base, opt),
		quotas: api.NewQuotaServiceClient(h, base, opt), cluster: api.NewClusterServiceClient(h, base, opt),
	}, nil
}

func loopback(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.IsLoopback()
}

// bearer adds the token to every request.
type bearer struct {
	token string
	next  http.RoundTripper
}

// RoundTrip sends r with the token.
func (b bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	if b.token != "" {
		r = r.Clone(r.Context())
		r.Header.Set("Authorization", "Bearer "+b.token)
	}
	return b.next.RoundTrip(r)
}
