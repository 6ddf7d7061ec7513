package dashboard

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"
)

const (
	cookieName  = "__Host-cohort" // browsers take it only over TLS, for this host alone and the whole of it
	linkLife    = 10 * time.Minute
	maxLinks    = 64
	maxSessions = 64
)

// A Session is somebody who is signed in.
type Session struct {
	ID      string // to end it by; not what the browser holds
	Began   time.Time
	Seen    time.Time // when it last asked for something
	Expires time.Time
	Remote  string // address it signed in from
	Agent   string // what its browser says it is
}

// An entry is a session as it is kept. Gone is closed when it ends.
type entry struct {
	Session
	gone chan struct{}
}

// The door keeps links and sessions, in memory: a restart ends them all. Secrets are kept as their SHA-256 only.
type door struct {
	now  func() time.Time
	life time.Duration

	mu       sync.Mutex
	links    map[[32]byte]time.Time // until when each is good
	sessions map[[32]byte]*entry
}

func secret() string {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // never fails
	return base64.RawURLEncoding.EncodeToString(b)
}

// mint makes the token of a new link. Of too many links the oldest is forgotten.
func (d *door) mint() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sweep()
	if len(d.links) >= maxLinks {
		var oldest [32]byte
		for k, t := range d.links {
			if first, ok := d.links[oldest]; !ok || t.Before(first) {
				oldest = k
			}
		}
		delete(d.links, oldest)
	}
	token := secret()
	d.links[sha256.Sum256([]byte(token))] = d.now().Add(linkLife)
	return token
}

// sweep forgets what has expired. The caller holds mu.
func (d *door) sweep() {
	now := d.now()
	for k, t := range d.links {
		if !now.Before(t) {
			delete(d.links, k)
		}
	}
	for k, e := range d.sessions {
		if !now.Before(e.Expires) {
			d.end(k)
		}
	}
}

func (d *door) end(key [32]byte) {
	close(d.sessions[key].gone)
	delete(d.sessions, key)
}

// enter spends a token and returns the secret of a new session; false if the token is unknown, spent or too old. Of too many
// sessions the one that was seen least recently ends.
func (d *door) enter(token string, r *http.Request) (value string, expires time.Time, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sweep()
	key := sha256.Sum256([]byte(token))
	if _, ok := d.links[key]; !ok {
		return "", time.Time{}, false
	}
	delete(d.links, key)
	if len(d.sessions) >= maxSessions {
		var idle [32]byte
		for k, e := range d.sessions {
			if first, ok := d.sessions[idle]; !ok || e.Seen.Before(first.Seen) {
				idle = k
			}
		}
		d.end(idle)
	}
	value = secret()
	hash := sha256.Sum256([]byte(value))
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	now := d.now()
	d.sessions[hash] = &entry{Session{
		ID: hex.EncodeToString(hash[:6]), Began: now, Seen: now, Expires: now.Add(d.life),
		Remote: host, Agent: clean(r.UserAgent(), maxName),
	}, make(chan struct{})}
	return value, now.Add(d.life), true
}

// who returns the session of a request, or nil.
func (d *door) who(r *http.Request) *entry {
	c, err := r.Cookie(cookieName)
	if err != nil {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sweep()
	e := d.sessions[sha256.Sum256([]byte(c.Value))]
	if e != nil {
		e.Seen = d.now()
	}
	return e
}

// leave ends the sessions for which pick returns true, and says how many.
func (d *door) leave(pick func(*entry) bool) (n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sweep()
	for k, e := range d.sessions {
		if pick(e) {
			d.end(k)
			n++
		}
	}
	return n
}

// Link returns the path and query of a link that signs its first visitor in: "/login?token=…". It works once, within ten
// minutes.
func (d *Dashboard) Link() string { return "/login?token=" + d.door.mint() }

// Sessions returns who is signed in, the newest first.
func (d *Dashboard) Sessions() []Session {
	d.door.mu.Lock()
	defer d.door.mu.Unlock()
	d.door.sweep()
	var list []Session
	for _, e := range d.door.sessions {
		list = append(list, e.Session)
	}
	slices.SortFunc(list, func(a, b Session) int { return b.Began.Compare(a.Began) })
	return list
}

// EndSession ends the session of that ID, and with it every page that it has open; false if there is none.
func (d *Dashboard) EndSession(id string) bool {
	return d.door.leave(func(e *entry) bool { return e.ID == id }) > 0
}

// EndSessions ends all sessions and says how many there were. Links that were not used yet stay good.
func (d *Dashboard) EndSessions() int { return d.door.leave(func(*entry) bool { return true }) }

// login spends the token of a link. It answers with a page that goes on by itself instead of a redirect: a browser that came
// here from another site would not send a SameSite=Strict cookie along with a redirected request.
func (d *Dashboard) login(w http.ResponseWriter, r *http.Request) {
	// Programs that look at links before people do (HEAD, prefetch) must not spend them.
	if r.Method != http.MethodGet || r.Header.Get("Sec-Purpose") != "" || r.Header.Get("Purpose") == "prefetch" {
		d.notice(w, r, http.StatusUnauthorized, signIn)
		return
	}
	value, expires, ok := d.door.enter(r.URL.Query().Get("token"), r)
	if !ok {
		if d.door.who(r) != nil { // the back button, or a link that was opened twice
			d.notice(w, r, http.StatusOK, signedIn)
			return
		}
		d.notice(w, r, http.StatusUnauthorized, spent)
		return
	}
	http.SetCookie(w, &http.Cookie{Name: cookieName, Value: value, Path: "/", Expires: expires,
		Secure: true, HttpOnly: true, SameSite: http.SameSiteStrictMode})
	d.notice(w, r, http.StatusOK, signedIn)
}

// logout ends the session of the request, if it comes from the page itself.
func (d *Dashboard) logout(w http.ResponseWriter, r *http.Request) {
	if err := d.crossOrigin.Check(r); err != nil {
		d.notice(w, r, http.StatusForbidden, notice{"Not from here", "The request to sign out did not come from this page.", "", false})
		return
	}
	if e := d.door.who(r); e != nil {
		d.door.leave(func(other *entry) bool { return other == e })
	}
	http.SetCookie(w, &http.Cookie{Name: cookieName, Path: "/", MaxAge: -1, Secure: true, HttpOnly: true, SameSite: http.SameSiteStrictMode})
	d.notice(w, r, http.StatusOK, signedOut)
}
