package server

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/covey-platform/covey/internal/store"
)

func TestRoom(t *testing.T) {
	for _, c := range []struct {
		name string
		size store.Size
		err  error
		want map[string]float64
	}{
		{"a file", store.Size{Bytes: 5, Free: 7, Waiting: 9}, nil, map[string]float64{"covey_store_bytes": 5, "covey_store_free_bytes": 7, "covey_store_waiting_rows": 9}},
		{"a database apart", store.Size{Bytes: 5, Free: -1}, nil, map[string]float64{"covey_store_bytes": 5, "covey_store_waiting_rows": 0}},
		{"one that does not answer", store.Size{}, errors.New("no answer"), map[string]float64{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := prometheus.NewPedanticRegistry()
			r.MustRegister(room{func(context.Context) (store.Size, error) { return c.size, c.err }})
			all, err := r.Gather()
			if err != nil {
				t.Fatal(err)
			}
			got := map[string]float64{}
			for _, f := range all {
				got[f.GetName()] = f.GetMetric()[0].GetGauge().GetValue()
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("metrics (-want +got):\n%s", diff)
			}
		})
	}
}
