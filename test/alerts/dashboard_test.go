package alerts

import (
	"context"
	"encoding/json"
	"path/filepath"
	"testing"
)

// dashboard is the part of Grafana's that asks Prometheus.
type dashboard struct {
	Panels []struct {
		Title   string `json:"title"`
		Targets []struct {
			Expr string `json:"expr"`
		} `json:"targets"`
	} `json:"panels"`
}

// dashboardAnswers: while a migration hangs and strangers share a volume, Prometheus
// answers every query, and no panel is empty.
func dashboardAnswers(ctx context.Context, t *testing.T, w *watched) {
	var d dashboard
	if err := json.Unmarshal([]byte(read(t, filepath.Join(manifests, "dashboard", "rds-csi.json"))), &d); err != nil {
		t.Fatal(err)
	}
	for _, p := range d.Panels {
		for _, m := range modes {
			answers := 0
			for _, target := range p.Targets {
				samples, err := w.query(ctx, m.name, target.Expr)
				if err != nil {
					t.Errorf("%s: %v", p.Title, err)
				}
				answers += len(samples)
			}
			if answers == 0 {
				t.Errorf("%s (%s) shows nothing", p.Title, m.name)
			}
		}
	}
	t.Logf("%d panels", len(d.Panels))
}
