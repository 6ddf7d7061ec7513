package worker

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/federated/fedtest"
	"github.com/cohort-learning/cohort/weights"
)

// A client's vault at a worker is that of the simulation: what is done once stays done, whoever does it next.
func TestVault(t *testing.T) {
	e := fedtest.Engine(t, "go")
	j := job(t, e, "fedavg")
	j.Workers, j.Config.Rounds = -1, 1
	h, _ := host(t, j, 0)
	l := lent(t, e, "fedavg", "one", 3)
	inner := l.Build
	var checked atomic.Int64
	l.Build = func(r Run) (federated.Client, error) {
		client, err := inner(r)
		return clientFunc(func(ctx context.Context, at federated.Local, task federated.Task, keep *weights.Set) (federated.Result, error) {
			if task.Phase == "train" {
				if at.Scope == "" || at.Peers == nil || at.Peers.Verify(at.Member.Name, []byte("x"), at.Peers.Sign([]byte("x"))) != nil {
					t.Error("the client does not know its run or its peers")
				}
				value := func(s string) func() ([]byte, error) {
					return func() ([]byte, error) { return []byte(s), nil }
				}
				once := func(name, s string) (string, error) {
					b, err := at.Vault.Once(name, value(s))
					return string(b), err
				}
				first, err1 := once("a/\xff", at.Member.Name)
				again, err2 := once("a/\xff", "another")
				if first != at.Member.Name || again != first || err1 != nil || err2 != nil {
					t.Errorf("once %q, %v, then %q, %v", first, err1, again, err2)
				}
				if _, err := at.Vault.Once("b/x", func() ([]byte, error) { return nil, errTest }); err != errTest {
					t.Errorf("a value that could not be made: %v", err)
				}
				if names, err := at.Vault.Names(); err != nil || !slices.Equal(names, []string{"a/\xff"}) {
					t.Errorf("names %q, %v", names, err)
				}
				if err := at.Vault.Erase("a/"); err != nil {
					t.Error(err)
				}
				if _, err := once("a/y", "late"); !errors.Is(err, federated.ErrErased) {
					t.Errorf("after it was erased: %v", err)
				}
				checked.Add(1)
			}
			return client.Run(ctx, at, task, keep)
		}), err
	}
	start(t, h, l)
	digest(t, j)
	if checked.Load() == 0 {
		t.Error("nobody was asked")
	}
}
