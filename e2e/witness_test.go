package e2e

import (
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

// witnessArg makes this test's binary a task that writes down what is asked of
// it.
const witnessArg = "witness"

// witnessMain serves on a port: /health is answered as mode says, and every
// other call and signal is written to the file "witness" in the order in which
// it comes. It ends when it is asked to, or told by SIGTERM, only in the mode
// "polite".
func witnessMain(args []string) int {
	if len(args) != 2 {
		fmt.Fprintln(os.Stderr, "want: witness MODE PORT")
		return 2
	}
	mode, port := args[0], args[1]
	f, err := os.OpenFile("witness", os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	note := func(s string) { fmt.Fprintf(f, "%s\n", s) }
	terms := make(chan os.Signal, 8)
	signal.Notify(terms, syscall.SIGTERM)
	go func() {
		for range terms {
			note("TERM")
			if mode == "polite" {
				os.Exit(0)
			}
		}
	}()
	http.HandleFunc("/", func(_ http.ResponseWriter, r *http.Request) {
		note(r.Method + " " + r.URL.Path)
		if mode == "polite" {
			os.Exit(0)
		}
	})
	http.HandleFunc("/health", func(w http.ResponseWriter, r *http.Request) {
		if mode == "deaf" {
			<-r.Context().Done()
			return
		}
		if _, err := os.Stat("sick"); err == nil {
			http.Error(w, "sick", http.StatusInternalServerError)
			return
		}
		fmt.Fprint(w, "ok")
	})
	if exe, err := os.Executable(); err == nil {
		note("start " + filepath.Base(exe))
	}
	s := http.Server{Addr: "127.0.0.1:" + port, ReadHeaderTimeout: 5 * time.Second}
	fmt.Fprintln(os.Stderr, s.ListenAndServe())
	return 1
}
