package server

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/covey-platform/covey/internal/store"
)

// A room measures the cluster's store when it is asked, with size.
type room struct {
	size func(context.Context) (store.Size, error)
}

// roomWithin is how long a store may take to say how large it is. A scrape
// has the rest without it.
const roomWithin = 2 * time.Second

var (
	roomBytes = prometheus.NewDesc("covey_store_bytes", "Size of the cluster's store, with its log.", nil, nil)
	roomFree  = prometheus.NewDesc("covey_store_free_bytes", "Room that is left on the disk of the cluster's store. A database that is not a file does not say it.", nil, nil)
	roomWaits = prometheus.NewDesc("covey_store_waiting_rows", "Rows that are committed and not yet merged into the tables. Nothing of them is lost by a crash; "+
		"above 300000 the merge falls behind, and at 800000 commits wait for it.", nil, nil)
)

// Describe is a part of [prometheus.Collector].
func (room) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{roomBytes, roomFree, roomWaits} {
		out <- d
	}
}

// Collect is a part of [prometheus.Collector].
func (r room) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), roomWithin)
	defer cancel()
	s, err := r.size(ctx)
	if err != nil {
		return
	}
	gauge := func(d *prometheus.Desc, n int64) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(n))
	}
	gauge(roomBytes, s.Bytes)
	if s.Free >= 0 {
		gauge(roomFree, s.Free)
	}
	gauge(roomWaits, int64(s.Waiting))
}
