package node

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/cohort-learning/cohort/identity"
	"github.com/cohort-learning/cohort/node/coordinator"
)

// A coordinator at work is told what to do over a socket in its folder, which only the owner of the folder can open.
const socketName = "admin.sock"

// Status is what a coordinator says of itself.
type Status struct {
	Schema      int               `json:"schema"`
	Federation  string            `json:"federation"`
	URL         string            `json:"url"`
	Fingerprint string            `json:"fingerprint"`
	Key         string            `json:"key"`
	Started     time.Time         `json:"started"`
	Program     string            `json:"program"`
	Runs        []coordinator.Now `json:"runs"`
	Members     []MemberStatus    `json:"members"`
}

// MemberStatus is a member of the federation.
type MemberStatus struct {
	Name    string    `json:"name"`
	State   string    `json:"state"` // invited, admitted, left, revoked
	Here    bool      `json:"here"`
	Since   time.Time `json:"since,omitzero"` // here, or not here
	Until   time.Time `json:"until,omitzero"` // invited: when the token expires
	Key     string    `json:"key,omitempty"`
	Kernels string    `json:"kernels,omitempty"`
	Program string    `json:"program,omitempty"`
	Why     string    `json:"why,omitempty"`
	Behind  string    `json:"behind,omitempty"` // a relay
	Leaves  int       `json:"leaves,omitempty"` // of a relay
}

// Members lists the members of the federation in the order of their invitation.
func (b *Book) Members(server *coordinator.Server) []MemberStatus {
	list := []MemberStatus{}
	for _, m := range b.Roster.Members() {
		s := MemberStatus{Name: m.Name, State: string(m.State), Until: m.Until, Why: m.Why}
		s.Behind, _ = b.relays.Behind(m.Name)
		s.Leaves = b.relays.leaves(m.Name)
		if !m.Key.IsZero() {
			s.Key = m.Key.String()
		}
		if server != nil {
			s.Here, s.Since, s.Kernels, s.Program = server.Presence(m.Name)
		}
		list = append(list, s)
	}
	return list
}

// Status returns how things stand.
func (h *Host) Status() Status {
	s := Status{Schema: 1, Federation: h.Name, URL: h.URL, Fingerprint: h.CA.Fingerprint().String(), Key: h.Book.Key.Public().String(),
		Started: h.started, Program: h.o.Program, Runs: []coordinator.Now{}, Members: h.Members(h.Server)}
	for _, r := range h.Server.Runs() {
		s.Runs = append(s.Runs, r.Now())
	}
	return s
}

// adminServer answers on the socket.
type adminServer struct {
	h    *Host
	l    net.Listener
	http *http.Server
}

func newAdmin(h *Host) (*adminServer, error) {
	path := h.path(socketName)
	// The folder's lock is held, so that a socket that is there is left from a process that is gone.
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	l, err := listenUnix(path)
	if err != nil {
		return nil, fmt.Errorf("socket for commands: %w", err)
	}
	a := &adminServer{h: h, l: l}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", answered(func(*http.Request, struct{}) (any, error) { return h.Status(), nil }))
	mux.HandleFunc("POST /link", answered(func(*http.Request, struct{}) (any, error) { return h.Link(), nil }))
	mux.HandleFunc("POST /invite", answered(func(_ *http.Request, in inviteRequest) (any, error) { return h.invite(in) }))
	mux.HandleFunc("POST /revoke", answered(func(_ *http.Request, in revokeRequest) (any, error) {
		return struct{}{}, h.Revoke(in.Name, in.Reason)
	}))
	mux.HandleFunc("POST /stop", answered(func(_ *http.Request, in runRequest) (any, error) { return struct{}{}, h.stop(in.Run) }))
	mux.HandleFunc("POST /wait", answered(func(r *http.Request, in runRequest) (any, error) { return h.wait(r.Context(), in.Run) }))
	mux.HandleFunc("POST /predict", answered(func(r *http.Request, in Question) (any, error) { return h.Predict(r.Context(), in) }))
	mux.HandleFunc("GET /backup", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "Cohort-Error")
		if err := h.Backup(w); err != nil {
			w.Header().Set("Cohort-Error", err.Error())
		}
	})
	a.http = &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	return a, nil
}

func (a *adminServer) serve() error {
	if err := a.http.Serve(a.l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("socket for commands: %w", err)
	}
	return nil
}

func (a *adminServer) close() error {
	err := a.http.Close()
	_ = a.l.Close() // if it was never served
	_ = os.Remove(a.h.path(socketName))
	return err
}

// answered turns a function into a handler: JSON in, JSON out.
func answered[T any](f func(*http.Request, T) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var in T
		if r.Method == http.MethodPost {
			if err := json.NewDecoder(io.LimitReader(r.Body, 16<<20)).Decode(&in); err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
		}
		out, err := f(r, in)
		if err != nil {
			http.Error(w, err.Error(), http.StatusUnprocessableEntity)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(out) // the command is gone
	}
}

type inviteRequest struct {
	Names   []string      `json:"names"`
	Expires time.Duration `json:"expires"`
	Relay   string        `json:"relay,omitempty"` // that they will be behind; empty: none
}

// Invitation is a token to join with.
type Invitation struct {
	Name    string    `json:"name"`
	Token   string    `json:"token"`
	Expires time.Time `json:"expires"`
}

func (h *Host) invite(in inviteRequest) ([]Invitation, error) {
	if in.Relay != "" {
		return Invitations(h.TokensBehind(in.Relay, in.Expires, in.Names...))
	}
	return Invitations(h.Tokens(in.Expires, in.Names...))
}

// Invitations writes tokens for those who hand them on.
func Invitations(tokens []identity.Token, err error) ([]Invitation, error) {
	if err != nil {
		return nil, err
	}
	out := []Invitation{}
	for _, t := range tokens {
		out = append(out, Invitation{t.Name, t.String(), t.Expires})
	}
	return out, nil
}

type revokeRequest struct {
	Name   string `json:"name"`
	Reason string `json:"reason"`
}

type runRequest struct {
	Run string `json:"run"` // empty: all
}

func (h *Host) stop(id string) error {
	if id == "" {
		for _, r := range h.Server.Runs() {
			r.Stop()
		}
		return nil
	}
	r, ok := h.Server.Run(id)
	if !ok {
		return fmt.Errorf("there is no run %q", id)
	}
	r.Stop()
	return nil
}

// wait waits until a run, or all, are over.
func (h *Host) wait(ctx context.Context, id string) (Status, error) {
	runs := h.Server.Runs()
	if id != "" {
		r, ok := h.Server.Run(id)
		if !ok {
			return Status{}, fmt.Errorf("there is no run %q", id)
		}
		runs = []*coordinator.Run{r}
	}
	for _, r := range runs {
		select {
		case <-r.Done():
		case <-ctx.Done():
			return Status{}, ctx.Err()
		}
	}
	return h.Status(), nil
}

// ErrNotServing tells that no coordinator is at work in the folder.
var ErrNotServing = errors.New("no coordinator is at work in this folder; start it with \"cohort serve\"")

// Admin speaks with the coordinator that is at work in a folder.
type Admin struct{ http http.Client }

// NewAdmin returns what speaks with the coordinator in dir.
func NewAdmin(dir string) *Admin {
	path := filepath.Join(dir, socketName)
	return &Admin{http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			c, err := dialUnix(ctx, path)
			if errors.Is(err, fs.ErrNotExist) || refused(err) {
				return nil, ErrNotServing
			}
			return c, err
		}}}}
}

// ask sends a request; the caller closes the body of the answer.
func (a *Admin) ask(ctx context.Context, path string, in any) (*http.Response, error) {
	method, body := http.MethodGet, io.Reader(nil)
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return nil, err
		}
		method, body = http.MethodPost, bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://coordinator"+path, body)
	if err != nil {
		return nil, err
	}
	res, err := a.http.Do(req)
	if errors.Is(err, ErrNotServing) {
		return nil, ErrNotServing
	}
	if err != nil {
		return nil, fmt.Errorf("speaking with the coordinator: %w", err)
	}
	if res.StatusCode != http.StatusOK {
		defer res.Body.Close()
		text, _ := io.ReadAll(io.LimitReader(res.Body, 1<<16))
		return nil, errors.New(string(bytes.TrimSpace(text)))
	}
	return res, nil
}

func (a *Admin) call(ctx context.Context, path string, in, out any) error {
	res, err := a.ask(ctx, path, in)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	return json.NewDecoder(res.Body).Decode(out)
}

// Status returns how things stand.
func (a *Admin) Status(ctx context.Context) (s Status, err error) {
	return s, a.call(ctx, "/status", nil, &s)
}

// Link returns a link to the page that signs its first visitor in; it works once, within ten minutes.
func (a *Admin) Link(ctx context.Context) (url string, err error) {
	return url, a.call(ctx, "/link", struct{}{}, &url)
}

// Invite invites members, behind a relay if one is named.
func (a *Admin) Invite(ctx context.Context, relay string, expires time.Duration, names ...string) (out []Invitation, err error) {
	return out, a.call(ctx, "/invite", inviteRequest{names, expires, relay}, &out)
}

// Revoke takes a member out of the federation.
func (a *Admin) Revoke(ctx context.Context, name, reason string) error {
	return a.call(ctx, "/revoke", revokeRequest{name, reason}, &struct{}{})
}

// Stop ends a run, or all, after the round under way.
func (a *Admin) Stop(ctx context.Context, run string) error {
	return a.call(ctx, "/stop", runRequest{run}, &struct{}{})
}

// Wait waits until a run, or all, are over.
func (a *Admin) Wait(ctx context.Context, run string) (s Status, err error) {
	return s, a.call(ctx, "/wait", runRequest{run}, &s)
}

// Predict asks the organisations of a run about entities.
func (a *Admin) Predict(ctx context.Context, q Question) (out Reply, err error) {
	return out, a.call(ctx, "/predict", q, &out)
}

// Backup copies everything the coordinator has as a tar archive.
func (a *Admin) Backup(ctx context.Context, w io.Writer) error {
	res, err := a.ask(ctx, "/backup", nil)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if _, err := io.Copy(w, res.Body); err != nil {
		return err
	}
	if text := res.Trailer.Get("Cohort-Error"); text != "" {
		return errors.New(text)
	}
	return nil
}
