package gate

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cohort-learning/cohort/identity"
)

// elsewhere returns a dialer with another source address, or skips the test.
func elsewhere(t *testing.T, addr string) *net.Dialer {
	d := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	c, err := d.Dial("tcp", addr)
	if err != nil {
		t.Skipf("this system has one loopback address only: %v", err)
	}
	c.Close()
	return d
}

// 2,000 connections of strangers and 200 that dribble their requests, from another
// address: all the while, an established member's requests are answered on the
// connection that it has, and a member that connects anew gets through.
func TestStorm(t *testing.T) {
	s := newSite(t, Limits{})
	k, north := s.member("north")
	from := elsewhere(t, s.addr)
	b, err := bus(north, s.url)
	must(t, err, echo(b, "before"))
	if code, _, _, err := get(north, s.url+"/blob/x"); err != nil || code != 200 {
		t.Fatal(code, err)
	}

	var held sync.Map
	defer held.Range(func(c, _ any) bool { c.(net.Conn).Close(); return true })
	hold := func(c net.Conn, err error) net.Conn {
		if err == nil {
			held.Store(c, true)
		}
		return c
	}
	stranger := &tls.Config{InsecureSkipVerify: true}
	var made atomic.Int64
	var storm sync.WaitGroup
	for i := range 20 {
		storm.Go(func() {
			for j := range 110 {
				made.Add(1)
				switch {
				case j < 70 || i%2 == 0 && j < 100: // silent: never says a word
					hold(from.Dial("tcp", s.addr))
				case j < 100: // greets, and is idle
					c, err := tls.DialWithDialer(from, "tcp", s.addr, stranger)
					if err == nil {
						hold(c, nil)
					}
				default: // dribbles a header or a body
					c, err := tls.DialWithDialer(from, "tcp", s.addr, stranger)
					if err != nil {
						continue // pushed out in the handshake
					}
					hold(c, nil)
					if j%2 == 0 {
						io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ")
					} else {
						io.WriteString(c, "POST /join HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{")
					}
					for range 20 {
						if _, err := io.WriteString(c, "a"); err != nil {
							break
						}
					}
				}
			}
		})
	}
	over := make(chan struct{})
	go func() { storm.Wait(); close(over) }()

	limits := Limits{}.defaults()
	rounds := 0
	for going := true; going || rounds < 20; rounds++ {
		select {
		case <-over:
			going = false
		default:
		}
		reused := false
		req, err := http.NewRequest(http.MethodGet, s.url+"/blob/x", nil)
		must(t, err)
		req = req.WithContext(httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { reused = i.Reused }}))
		resp, err := north.Do(req)
		if err != nil || resp.StatusCode != 200 {
			t.Fatalf("the member's request %d: %v", rounds, err)
		}
		resp.Body.Close()
		if !reused {
			t.Errorf("request %d: the member's connection was cut", rounds)
		}
		must(t, echo(b, fmt.Sprint("round ", rounds)))
		if rounds%5 == 0 {
			fresh := s.client(k)
			if code, _, _, err := get(fresh, s.url+"/blob/x"); err != nil || code != 200 {
				t.Fatalf("a member that connects anew, round %d: %d %v", rounds, code, err)
			}
			fresh.CloseIdleConnections()
		}
		if st := s.gate.Stats(); st.Strangers > limits.Strangers || st.Strangers > limits.StrangersPerAddress+limits.Strangers/2 {
			t.Fatalf("%d strangers", st.Strangers)
		}
	}
	st := s.gate.Stats()
	t.Logf("%d connections made, %d rounds of the member, %+v", made.Load(), rounds, st)
	if made.Load() != 2200 || st.Evicted+st.RefusedAddress+st.RefusedFull == 0 {
		t.Errorf("this was no storm: %+v", st)
	}
}

// When the places are full, the stranger that was idle longest goes, and no busy one.
func TestEviction(t *testing.T) {
	t.Run("of all", func(t *testing.T) { eviction(t, Limits{Strangers: 3}) })
	t.Run("of an address", func(t *testing.T) { eviction(t, Limits{StrangersPerAddress: 3}) })
	t.Run("of connections", func(t *testing.T) { eviction(t, Limits{Connections: 3}) })
}

func eviction(t *testing.T, l Limits) {
	s := newSite(t, l)
	release := make(chan struct{})
	started := make(chan struct{}, 1)
	s.gate.Handle("/busy", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		started <- struct{}{}
		<-release
	}))
	open := func() *http.Client {
		c := s.client(identity.Key{})
		if code, _, _, err := get(c, s.url+"/"); err != nil || code != 200 {
			t.Fatal(code, err)
		}
		return c
	}
	reused := func(c *http.Client) (is bool) {
		req, _ := http.NewRequest(http.MethodGet, s.url+"/", nil)
		req = req.WithContext(httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { is = i.Reused }}))
		resp, err := c.Do(req)
		must(t, err)
		resp.Body.Close()
		return is
	}
	busy := open()
	done := make(chan error, 1)
	go func() {
		_, _, _, err := get(busy, s.url+"/busy")
		done <- err
	}()
	<-started
	first, second := open(), open()
	for _, c := range []*http.Client{first, second, first} { // second has then been idle longest
		if !reused(c) {
			t.Fatal("pushed out although there was room")
		}
		time.Sleep(20 * time.Millisecond) // the server reads on a moment after it has answered
	}
	open()
	if !reused(first) {
		t.Error("the one that was used last was pushed out")
	}
	close(release)
	must(t, <-done) // the busy one, idle the longest by its bytes, was left alone
	if st := s.gate.Stats(); st.Evicted != 1 || st.Strangers != 3 {
		t.Errorf("%+v", st)
	}
}

// With every place taken by busy strangers, newcomers are refused, but whoever was
// a member before stays.
func TestFullOfBusyStrangers(t *testing.T) {
	s := newSite(t, Limits{Strangers: 2, StrangersPerAddress: 2})
	_, north := s.member("north")
	if code, _, _, err := get(north, s.url+"/blob/x"); err != nil || code != 200 {
		t.Fatal(code, err)
	}
	release := make(chan struct{})
	started := make(chan struct{}, 2)
	s.gate.Handle("/busy", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		started <- struct{}{}
		<-release
	}))
	var wg sync.WaitGroup
	for range 2 {
		c := s.client(identity.Key{})
		wg.Go(func() { get(c, s.url+"/busy") })
		<-started
	}
	if _, _, _, err := get(s.client(identity.Key{}), s.url+"/"); err == nil {
		t.Error("a third stranger was let in")
	}
	if code, _, _, err := get(north, s.url+"/blob/x"); err != nil || code != 200 {
		t.Errorf("the member: %d %v", code, err)
	}
	close(release)
	wg.Wait()
	if st := s.gate.Stats(); st.RefusedAddress+st.RefusedFull == 0 {
		t.Errorf("%+v", st)
	}
}
