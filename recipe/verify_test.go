package recipe

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/record"
	"github.com/cohort-learning/cohort/simulation"
)

// TestReplayApart computes runs again from their journals by the coordinator's half of the plan and the members' exported
// folders, bit for bit; with other members' data it does not come out.
func TestReplayApart(t *testing.T) {
	paths := files(t)
	for _, name := range []string{"heterofl on rotated images", "scaffold on features", "heterofl on text"} {
		whole, e := planOf(t, paths.Replace(recipesOfParties[name]), "clients.dropout=0.2")
		shares, dir := filepath.Join(t.TempDir(), "shares"), t.TempDir()
		_, err := whole.Dealt.Export(t.Context(), shares, whole.Split.Train, whole.Split.Test)
		check(t, err)
		job, err := whole.Job(e)
		check(t, err)
		run, err := whole.Create(dir, record.Meta{}, record.Options{})
		check(t, err)
		s, err := job.RunIn(t.Context(), run, journal.OS(), 1)
		check(t, err)
		check(t, run.Close(record.Finished, nil))

		server, err := whole.Recipe.PlanServer(t.Context(), ServerData{})
		check(t, err)
		var roster []string
		for i := range job.Fleet.Len() {
			roster = append(roster, job.Fleet.Member(i).Name)
		}
		h, err := simulation.ReadHistory(journal.Read(journal.OS(), dir))
		check(t, err)
		again, err := server.Replay(t.Context(), e, shares, roster)
		check(t, err)
		if n, digest, err := again.Replay(t.Context(), h, nil); n != 2 || digest != s.Digest() || err != nil {
			t.Errorf("%s: %d rounds agree, the last to %.16s, want 2 and %.16s; error %v", name, n, digest, s.Digest(), err)
		}
		again.Observer = quiet{}
		if n, worst, err := VerifyReplayMetrics(t.Context(), again, dir, h, nil); n != 2 || worst != 0 || err != nil {
			t.Errorf("%s: metrics of %d rounds agree within %g, error %v", name, n, worst, err)
		}

		// Without a manifest, folders have the names of members.
		check(t, os.Remove(filepath.Join(shares, "manifest.json")))
		_, err = server.Replay(t.Context(), e, shares, roster)
		if err == nil || !strings.Contains(err.Error(), "member "+roster[0]) {
			t.Errorf("%s: no data for %s: error %v", name, roster[0], err)
		}
		for i, m := range roster { // everybody has the next one's data
			check(t, os.Symlink(filepath.Join(shares, "member-00"+string(rune('0'+(i+1)%len(roster)))), filepath.Join(shares, m)))
		}
		other, err := server.Replay(t.Context(), e, shares, roster)
		check(t, err)
		var differs *simulation.MismatchError
		if n, _, err := other.Replay(t.Context(), h, nil); n != 0 || !errors.As(err, &differs) {
			t.Errorf("%s, with the data of others: %d rounds agree, error %v", name, n, err)
		}
		if _, err := server.Replay(t.Context(), e, shares, []string{"../shares"}); err == nil || !strings.Contains(err.Error(), "outside") {
			t.Errorf("%s: a member's name that leads elsewhere: error %v", name, err)
		}
	}
}

type quiet struct{}

func (quiet) Progress(int, string, int, int) {}
func (quiet) Round(simulation.Round)         {}
