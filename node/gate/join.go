package gate

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/cohort-learning/cohort/identity"
	"github.com/cohort-learning/cohort/journal"
)

// An Admitter is what enrolment needs of the roster; [identity.Roster] is one. Its
// methods may be called from many goroutines, and Admit again with the same
// arguments has no further effect.
type Admitter interface {
	Federation() identity.Public
	Name() string
	Admit(name string, secret identity.Secret, key identity.Public) (identity.Member, error)
	Proof(name string) (identity.Proof, error)
	Head() journal.Head
}

var _ Admitter = (*identity.Roster)(nil)

// A JoinRequest asks for a name, by the secret of its token.
type JoinRequest struct {
	Name   string          `json:"name"`
	Secret identity.Secret `json:"secret"`
	Key    identity.Public `json:"key"`
	Proof  []byte          `json:"proof"` // see ProveKey
}

// A JoinReply says that the name is taken by the key, as the federation signed it.
type JoinReply struct {
	Federation string         `json:"federation"` // its name
	Member     string         `json:"member"`
	Admission  identity.Proof `json:"admission"`
	Head       journal.Head   `json:"head"` // of the roster
}

// exporterLabel names the value of TLS that stands for one connection (RFC 8446,
// section 7.5): both ends compute it and nobody else can, so a proof made for one
// connection is worth nothing on another. It takes the place of a challenge.
const exporterLabel = "EXPORTER-cohort-join"

func binding(s *tls.ConnectionState) ([]byte, error) {
	return s.ExportKeyingMaterial(exporterLabel, nil, 32)
}

func proofMessage(federation, key identity.Public, name string, binding []byte) []byte {
	b := []byte("cohort/join/1\n")
	for _, part := range [][]byte{federation[:], key[:], []byte(name), binding} {
		b = binary.BigEndian.AppendUint32(b, uint32(len(part)))
		b = append(b, part...)
	}
	return b
}

// ProveKey signs, by the new key, that its owner wants to take the name in this
// federation over the connection that binding stands for.
func ProveKey(k identity.Key, federation identity.Public, name string, binding []byte) []byte {
	return k.Sign(proofMessage(federation, k.Public(), name, binding))
}

// Enrol decides about a request that came over the connection which binding
// stands for. An error is a *[Refusal].
//
// Whoever lacks the secret learns nothing: a wrong secret and an unknown name give
// the same answer.
func Enrol(a Admitter, req JoinRequest, binding []byte) (JoinReply, error) {
	if len(binding) == 0 || !req.Key.Verify(proofMessage(a.Federation(), req.Key, req.Name, binding), req.Proof) {
		return JoinReply{}, &Refusal{Code: BadProof, Status: http.StatusForbidden,
			Message: "the request does not prove that its sender owns the key, over this very connection: something between that ends TLS would cause that"}
	}
	return admit(a, req)
}

func admit(a Admitter, req JoinRequest) (JoinReply, error) {
	m, err := a.Admit(req.Name, req.Secret, req.Key)
	if err != nil {
		return JoinReply{}, refusal(err)
	}
	proof, err := a.Proof(m.Name)
	if err != nil {
		return JoinReply{}, refusal(err)
	}
	return JoinReply{Federation: a.Name(), Member: m.Name, Admission: proof, Head: a.Head()}, nil
}

// EnrolBehind decides about a request that a relay passes on. The relay has checked, over the connection to itself, that the
// sender owns the key; mine says which names are behind it. Others get the answer of whoever lacks the secret.
func EnrolBehind(a Admitter, req JoinRequest, mine func(name string) bool) (JoinReply, error) {
	if !mine(req.Name) {
		return JoinReply{}, refusal(identity.ErrNotInvited)
	}
	return admit(a, req)
}

func refusal(err error) *Refusal {
	var no *Refusal
	if errors.As(err, &no) { // of a coordinator that was asked
		return no
	}
	for _, c := range []struct {
		err    error
		code   string
		status int
	}{
		{identity.ErrNotInvited, NoInvitation, http.StatusForbidden},
		{identity.ErrTokenUsed, TokenUsed, http.StatusConflict},
		{identity.ErrTokenExpired, TokenExpired, http.StatusGone},
		{identity.ErrTokenSuperseded, TokenSuperseded, http.StatusGone},
		{identity.ErrNameRevoked, NameRevoked, http.StatusForbidden},
		{identity.ErrKeyTaken, KeyTaken, http.StatusConflict},
		{identity.ErrOtherKey, OtherKey, http.StatusConflict},
	} {
		if errors.Is(err, c.err) {
			return &Refusal{Code: c.code, Status: c.status, Message: err.Error()}
		}
	}
	return &Refusal{Code: Internal, Status: http.StatusInternalServerError,
		Message: "the coordinator could not write to its roster; its operator finds the reason in its log, and asking again is safe"}
}

// JoinLimits bound what somebody without an invitation can cause. Zero values
// mean the defaults.
type JoinLimits struct {
	Failures int           // that one source address may cause at once; default 20
	Every    time.Duration // one more after that; default 5 s
	// Answer is how long after a request its refusal as not invited is sent,
	// whatever had to be looked up; default 200 ms.
	Answer time.Duration
	Log    *slog.Logger // nil means none
}

// JoinHandler answers POST requests with a [JoinRequest]. Attempts that succeed do
// not count towards the limits, so that a thousand members behind one address can
// join.
func JoinHandler(a Admitter, l JoinLimits) http.Handler {
	b := &buckets{size: float64(cmp.Or(l.Failures, 20)), every: cmp.Or(l.Every, 5*time.Second), level: make(map[source]bucket)}
	answer := cmp.Or(l.Answer, 200*time.Millisecond)
	log := l.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		from := remote(r)
		if wait := b.take(from, start); wait > 0 {
			Refuse(w, &Refusal{Code: TooOften, Status: http.StatusTooManyRequests, After: wait, Message: "too many failed attempts to join from this address; wait a little"})
			return
		}
		reply, err := join(a, r)
		if err == nil {
			b.give(from)
			log.Info("a member has joined", "member", reply.Member, "from", r.RemoteAddr)
			writeJSON(w, http.StatusOK, reply)
			return
		}
		var no *Refusal
		if !errors.As(err, &no) {
			no = refusal(err)
		}
		log.Warn("refused to let somebody join", "code", no.Code, "from", r.RemoteAddr, "err", err)
		if no.Code == NoInvitation {
			pause(r.Context(), time.Until(start.Add(answer)))
		}
		Refuse(w, no)
	})
}

func join(a Admitter, r *http.Request) (JoinReply, error) {
	bad := func(what string) (JoinReply, error) {
		return JoinReply{}, &Refusal{Code: BadRequest, Status: http.StatusBadRequest, Message: what}
	}
	if r.TLS == nil {
		return bad("joining needs TLS")
	}
	if r.Method != http.MethodPost {
		return JoinReply{}, &Refusal{Code: BadRequest, Status: http.StatusMethodNotAllowed, Message: "joining is a POST request"}
	}
	var req JoinRequest
	d := json.NewDecoder(http.MaxBytesReader(nil, r.Body, 4<<10))
	d.DisallowUnknownFields()
	if err := d.Decode(&req); err != nil {
		return bad("the request is not one to join: " + err.Error())
	}
	bind, err := binding(r.TLS)
	if err != nil {
		return bad("this connection cannot be bound to: it has to be TLS 1.3")
	}
	return Enrol(a, req, bind)
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

func remote(r *http.Request) source {
	a, err := net.ResolveTCPAddr("tcp", r.RemoteAddr) // always numeric: looks nothing up
	if err != nil {
		return source{}
	}
	return sourceOf(a)
}

// buckets count down failures of each address and fill up with time.
type buckets struct {
	size  float64
	every time.Duration

	mu    sync.Mutex
	level map[source]bucket
}

type bucket struct {
	left float64
	at   time.Time
}

// maxBuckets bounds the memory: more addresses than that are forgotten.
const maxBuckets = 4096

// take uses one attempt up, or returns how long to wait for the next.
func (b *buckets) take(s source, now time.Time) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	left := b.now(s, now)
	if left < 1 {
		return time.Duration((1 - left) * float64(b.every))
	}
	if len(b.level) >= maxBuckets {
		for old := range b.level {
			if b.now(old, now) >= b.size {
				delete(b.level, old)
			}
		}
		for old := range b.level {
			if len(b.level) < maxBuckets {
				break
			}
			delete(b.level, old)
		}
	}
	b.level[s] = bucket{left - 1, now}
	return 0
}

// give returns an attempt that succeeded.
func (b *buckets) give(s source) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if v, ok := b.level[s]; ok {
		b.level[s] = bucket{min(v.left+1, b.size), v.at}
	}
}

func (b *buckets) now(s source, now time.Time) float64 {
	v, ok := b.level[s]
	if !ok {
		return b.size
	}
	return min(b.size, v.left+float64(now.Sub(v.at))/float64(b.every))
}
