package member_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cohort-learning/cohort/federated"
	secure "github.com/cohort-learning/cohort/federated/private"
	"github.com/cohort-learning/cohort/identity"
	"github.com/cohort-learning/cohort/weights"
)

// secure reports whether the study has secure sums.
func (s *study) secure() bool { _, ok := s.ours.(*secure.Secure); return ok }

// theColleagues have keys of their own, which the member has from them.
var theColleagues, pins = func() (map[string]identity.Key, map[string]identity.Public) {
	keys, pins := map[string]identity.Key{}, map[string]identity.Public{}
	for i := 1; i < 4; i++ {
		k, err := identity.NewKey()
		if err != nil {
			panic(err)
		}
		name := fmt.Sprintf("member-%d", i)
		keys[name], pins[name] = k, k.Public()
	}
	return keys, pins
}()

// colleague is what one of them knows of the others and of the member.
type colleague string

func (c colleague) Sign(msg []byte) []byte { return theColleagues[string(c)].Sign(msg) }

func (c colleague) Verify(name string, msg, sig []byte) error {
	key, ok := pins[name]
	if name == me {
		key, ok = theMember.Public(), true
	}
	if !ok || !key.Verify(msg, sig) {
		return fmt.Errorf("the signature is not that of %s", name)
	}
	return nil
}

func (colleague) Pinned(string) bool { return true }
func (colleague) Insists() bool      { return true }

// locals are where the colleagues of a secure study work: with the run's name, and vaults of their own.
func (c *coordinator) locals() func(federated.Member) federated.Local {
	vaults := new(federated.Vaults)
	return func(m federated.Member) federated.Local {
		at := c.study.world.Local(m)
		at.Scope, at.Vault, at.Peers = c.fed+"/"+theRun, vaults.Of(m.Index), colleague(m.Name)
		return at
	}
}

// others is a client that leaves the member's own part to the member.
type others struct{ federated.Client }

func (o others) Run(ctx context.Context, at federated.Local, t federated.Task, keep *weights.Set) (federated.Result, error) {
	if at.Member.Name == me {
		return federated.Result{}, errors.New("the member answers itself")
	}
	return o.Client.Run(ctx, at, t, keep)
}

// vault is what is in the member's vault, by path.
func (p *person) vault() map[string]string {
	dir := filepath.Join(p.folder.Dir, "vault")
	out := map[string]string{}
	for _, path := range p.disk.under(dir) {
		f, err := p.disk.OpenFile(path, os.O_RDONLY, 0)
		if err != nil {
			continue
		}
		if b, err := io.ReadAll(f); err == nil && !strings.HasSuffix(path, ".tmp") {
			out[strings.TrimPrefix(path, dir+"/")] = string(b)
		}
	}
	return out
}

// compareVaults checks that values of the vault stay as they are until they are erased, and that all are when the
// run is over.
func (x *crashes) compareVaults(t *testing.T, what string) {
	t.Helper()
	for i, before := range x.vaults[:max(0, len(x.vaults)-1)] {
		after := x.vaults[i+1]
		for path, b := range before {
			got, ok := after[path]
			_, erased := after[filepath.Dir(path)+".erased"]
			switch {
			case ok && got != b:
				t.Errorf("%s: %s of the vault was changed", what, path)
			case !ok && !erased:
				t.Errorf("%s: %s of the vault is gone", what, path)
			}
		}
	}
	if !x.coordinator.study.secure() {
		return
	}
	last := x.vaults[len(x.vaults)-1]
	for path := range maps.Keys(last) {
		if strings.HasSuffix(path, ".value") {
			t.Errorf("%s: the run is over and the vault still has %s", what, path)
		}
	}
	if len(last) < 3 {
		t.Errorf("%s: the vault has %d files only", what, len(last))
	}
}
