package node

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/cohort-learning/cohort/identity"
	"github.com/cohort-learning/cohort/node/member"
)

// RotateCA replaces the authority that signs the coordinator's certificate. For the time overlap the old one is recognised, too:
// members that connect meanwhile learn the new one from a list that the federation's key signs. With 0, for an authority's key
// that has leaked, the old one is worth nothing at once, and members fetch the list when they do not recognise the coordinator.
// The coordinator must not be at work; members find it again by themselves.
func (b *Book) RotateCA(overlap time.Duration) error {
	ca, err := b.CA.Rotate(time.Now(), overlap)
	if err != nil {
		return fmt.Errorf("rotate the authority: %w", err)
	}
	if err := ca.Save(b.path(caName)); err != nil {
		return fmt.Errorf("rotate the authority: %w", err)
	}
	b.CA = ca
	b.Pins++
	return b.save()
}

// pins is the signed list of the fingerprints by which the coordinator is recognised.
func (b *Book) pins() []byte {
	p := identity.Pins{Serial: b.Pins}
	if b.Cert == "" {
		p.Pins = b.CA.Pins(time.Now())
	}
	return p.Sign(b.Key)
}

// serveRotation replaces the key of a member that asks for it, with the signatures of both keys.
func (h *Host) serveRotation(w http.ResponseWriter, r *http.Request) {
	name, _ := h.Gate.Who(r)
	var rot identity.Rotation
	if err := json.NewDecoder(io.LimitReader(r.Body, 1<<16)).Decode(&rot); err != nil {
		http.Error(w, "this is no request to replace a key: "+err.Error(), http.StatusBadRequest)
		return
	}
	if rot.Name != name {
		http.Error(w, "a member replaces its own key", http.StatusForbidden)
		return
	}
	if _, err := h.Roster.Rotate(rot); err != nil {
		http.Error(w, err.Error(), http.StatusUnprocessableEntity)
		return
	}
	h.o.Log.Info("replaced its key", "member", name)
	w.WriteHeader(http.StatusNoContent)
	if relay, ok := h.relays.Behind(name); ok {
		h.Server.Delegated(relay)
	}
	h.hub.Cut(name) // it connects again with the new key
}

// rotatePath is where members ask for it.
const rotatePath = member.RotatePath
