package dashboard

import (
	"regexp"
	"strings"
	"testing"

	"github.com/cohort-learning/cohort/record"
)

// The page of a run among organisations speaks of them, not of members or a global model, and shows what it costs that one is away.
func TestAmongOrganisations(t *testing.T) {
	s := newSite(t).enter()
	w := s.world
	w.mu.Lock()
	w.state.Among, w.state.Method, w.state.Rounds, w.state.Round = true, "gal", 5, 2
	w.state.Phase, w.state.Asked, w.state.Facts = "rows", 3, nil
	w.members = []Member{{Name: "bank", Presence: Here, Samples: 300}, {Name: "shop", Presence: Here}, {Name: "telephone", Presence: Gone}}
	w.mu.Unlock()
	w.tell(record.Body{Round: 1, Metrics: []record.Metric{{Name: "rmse", Value: 3.25}, {Name: "loss", Value: 10.5}, {Name: "weight", Key: "shop", Value: .25},
		{Name: "away", Key: "telephone", Value: 2.5}, {Name: "bytes.up", Value: 100}, {Name: "bytes.down", Value: 100}},
		Events: []record.Event{{Level: record.Warn, Client: "telephone", Message: "no answer"}}})
	_, page := s.get("/runs/ward-images")
	for _, want := range []string{"Organisations here", "From organisations", "to organisations", "<dt>RMSE</dt><dd>3.25", "all together", "telling which rows there are",
		"Rise of the loss where who is away predicts nothing, either", "Weight of each organisation", "Loss on the rows to test on", "Models: with the organisations", `scope="col" class="n">rows<`} {
		if !strings.Contains(page, want) {
			t.Errorf("the page does not say %q", want)
		}
	}
	visible := regexp.MustCompile(`<[^>]*>`).ReplaceAllString(page, " ")
	if found := regexp.MustCompile(`(?i)\b(members?|clients?|global|samples)\b`).FindAllString(visible, -1); found != nil {
		t.Errorf("the page says %q", found)
	}
}
