package web

import (
	"maps"
	"sync"
	"time"

	"github.com/cohort-learning/cohort/blob"
)

// Permits say who may upload and read which blobs. Its methods may be called
// from many goroutines. Permits live in memory: after a restart they are issued
// again.
type Permits struct {
	now func() time.Time

	mu      sync.Mutex
	uploads map[key]*upload
	grants  map[key]time.Time // until when; the zero time is for ever
	sweepAt int               // number of permits at which expired ones are looked for
}

type key struct {
	who  string
	blob blob.Hash
}

// NewPermits returns no permits.
func NewPermits() *Permits {
	return &Permits{now: time.Now, uploads: make(map[key]*upload), grants: make(map[key]time.Time), sweepAt: 1024}
}

// Issue permits who to upload a blob of exactly so many bytes until expires; the
// zero time means until it is revoked. Issuing it again changes the time and
// keeps what has arrived. While the permit lasts, what has arrived is pinned.
func (p *Permits) Issue(who string, h blob.Hash, bytes int64, expires time.Time) {
	p.mu.Lock()
	k := key{who, h}
	u := p.uploads[k]
	var old *upload
	if u == nil || u.bytes != bytes || expired(p.now(), u.expires) {
		old = u
		u = &upload{key: k, bytes: bytes, have: make(map[blob.Hash]bool), partial: make(map[blob.Hash]blob.Stage)}
		p.uploads[k] = u
	}
	u.expires = expires
	gone := p.sweep()
	p.mu.Unlock()
	if old != nil {
		gone = append(gone, old)
	}
	end(gone, false)
}

// Grant permits who to read a blob until expires; the zero time means until it
// is revoked.
func (p *Permits) Grant(who string, h blob.Hash, expires time.Time) {
	p.mu.Lock()
	p.grants[key{who, h}] = expires
	gone := p.sweep()
	p.mu.Unlock()
	end(gone, false)
}

// Uploaded reports whether who has uploaded the whole blob under a permit that
// has not been revoked; then it is durable.
func (p *Permits) Uploaded(who string, h blob.Hash) bool {
	u := p.upload(who, h)
	if u == nil {
		return false
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.done
}

// Revoke takes both permits for a blob away. What arrived of it is no longer
// pinned.
func (p *Permits) Revoke(who string, h blob.Hash) {
	p.remove(func(k key) bool { return k == key{who, h} })
}

// RevokeAll takes everything away from a member.
func (p *Permits) RevokeAll(who string) { p.remove(func(k key) bool { return k.who == who }) }

func (p *Permits) remove(which func(key) bool) {
	var gone []*upload
	p.mu.Lock()
	for k, u := range p.uploads {
		if which(k) {
			gone = append(gone, u)
			delete(p.uploads, k)
		}
	}
	maps.DeleteFunc(p.grants, func(k key, _ time.Time) bool { return which(k) })
	p.mu.Unlock()
	end(gone, true)
}

// sweep drops expired permits now and then. The caller holds mu, and ends those
// that it returns without it.
func (p *Permits) sweep() (gone []*upload) {
	if len(p.uploads)+len(p.grants) < p.sweepAt {
		return nil
	}
	now := p.now()
	for k, u := range p.uploads {
		if expired(now, u.expires) {
			gone = append(gone, u)
			delete(p.uploads, k)
		}
	}
	maps.DeleteFunc(p.grants, func(_ key, t time.Time) bool { return expired(now, t) })
	p.sweepAt = max(1024, 2*(len(p.uploads)+len(p.grants)))
	return gone
}

func expired(now, t time.Time) bool { return !t.IsZero() && !now.Before(t) }

// upload returns the permit of who to upload a blob, nil if there is none.
func (p *Permits) upload(who string, h blob.Hash) *upload {
	p.mu.Lock()
	u := p.uploads[key{who, h}]
	if u == nil || !expired(p.now(), u.expires) {
		p.mu.Unlock()
		return u
	}
	delete(p.uploads, u.key)
	p.mu.Unlock()
	u.end(false)
	return nil
}

// granted reports whether who may read a blob.
func (p *Permits) granted(who string, h blob.Hash) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	t, ok := p.grants[key{who, h}]
	return ok && !expired(p.now(), t)
}

func end(uploads []*upload, forget bool) {
	for _, u := range uploads {
		u.end(forget)
	}
}

// An upload is a permit to upload and what has arrived under it.
type upload struct {
	key     key
	bytes   int64
	expires time.Time // guarded by Permits.mu

	mu      sync.Mutex
	ended   bool
	list    *listing                 // nil until the manifest has come
	have    map[blob.Hash]bool       // chunks that this member sent, and that are durable
	partial map[blob.Hash]blob.Stage // beginnings of chunks
	done    bool                     // the manifest is durable
	unpin   func()                   // nil if nothing is pinned
	forget  func()                   // removes the note of what has arrived; nil if there is none
	noted   int                      // length of have when it was noted
}

// end gives back what the upload holds. Unless forget is set, the note of what
// has arrived stays for another permit.
func (u *upload) end(forget bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.ended = true
	for h, s := range u.partial {
		_ = s.Abort() // a file in tmp at worst
		delete(u.partial, h)
	}
	if u.unpin != nil {
		u.unpin()
		u.unpin = nil
	}
	if forget && u.forget != nil {
		u.forget()
		u.forget = nil
	}
}

// take returns the beginning of a chunk if it is so long, and how long it is.
func (u *upload) take(h blob.Hash, from int64) (s blob.Stage, have int64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	s = u.partial[h]
	if s == nil {
		return nil, 0
	}
	if s.Len() == from {
		delete(u.partial, h)
		return s, from
	}
	return nil, s.Len()
}

// keep keeps the beginning of a chunk, if it is worth it and longer than another.
func (u *upload) keep(h blob.Hash, s blob.Stage) {
	u.mu.Lock()
	old := u.partial[h]
	if u.ended || u.have[h] || s.Len() == 0 || old != nil && old.Len() >= s.Len() || old == nil && len(u.partial) >= maxPartial {
		u.mu.Unlock()
		_ = s.Abort()
		return
	}
	u.partial[h] = s
	u.mu.Unlock()
	if old != nil {
		_ = old.Abort()
	}
}

// maxPartial bounds the beginnings of chunks that are kept for one upload.
const maxPartial = 16

// A listing is a manifest whose chunks can be found by hash.
type listing struct {
	blob.Manifest
	index map[blob.Hash]int // of the first chunk with this hash
}

func newListing(m blob.Manifest) *listing {
	l := &listing{Manifest: m, index: make(map[blob.Hash]int, len(m.Chunks))}
	for i, h := range m.Chunks {
		if _, ok := l.index[h]; !ok {
			l.index[h] = i
		}
	}
	return l
}

// chunk returns the length of a chunk of the blob.
func (l *listing) chunk(h blob.Hash) (n int64, ok bool) {
	i, ok := l.index[h]
	if !ok {
		return 0, false
	}
	return l.ChunkLen(i), true
}
