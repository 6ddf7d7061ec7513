package natsbus

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"runtime/pprof"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nkeys"

	"github.com/cohort-learning/cohort/identity"
	"github.com/cohort-learning/cohort/transport"
)

// light is a member that costs little: it speaks the protocol by hand and answers every broadcast with a request.
type light struct {
	conn net.Conn
	name string
}

// run logs in over the connection, then answers until it ends. ready is called when the member is here.
func (l *light) run(k identity.Key, ready func()) error {
	buf := make([]byte, 4096)
	have := 0
	fill := func() error {
		n, err := l.conn.Read(buf[have:])
		have += n
		return err
	}
	for !strings.Contains(string(buf[:have]), "\r\n") {
		if err := fill(); err != nil {
			return err
		}
	}
	info := string(buf[:have])
	_, rest, _ := strings.Cut(info, `"nonce":"`)
	nonce, _, _ := strings.Cut(rest, `"`)
	_, rest, _ = strings.Cut(info, `"client_id":`)
	id, _, _ := strings.Cut(rest, ",")
	have = 0
	hello := fmt.Sprintf("CONNECT {\"verbose\":false,\"nkey\":%q,\"sig\":%q}\r\nSUB down.%s 1\r\nSUB all 2\r\nSUB _INBOX.%s.> 3\r\nPUB up.%s.here.%s 0\r\n\r\n",
		k.Public(), base64.RawURLEncoding.EncodeToString(k.Sign([]byte(nonce))), l.name, l.name, l.name, strings.Trim(id, "}\r\n"))
	if _, err := l.conn.Write([]byte(hello)); err != nil {
		return err
	}
	ready()
	answer := []byte("PUB up." + l.name + ".send _INBOX." + l.name + ".1 8\r\nanswer!!\r\n")
	for {
		if err := fill(); err != nil {
			return err
		}
		// Messages here are short and come alone or in pairs: MSG all 2 N, MSG _INBOX… N, PING, INFO.
		text := string(buf[:have])
		end := strings.LastIndex(text, "\r\n")
		if end < 0 || strings.Count(text, "MSG ")*2+strings.Count(text, "PING")+strings.Count(text, "INFO ") > strings.Count(text, "\r\n") {
			continue
		}
		have = 0
		for range strings.Count(text, "MSG all ") {
			if _, err := l.conn.Write(answer); err != nil {
				return err
			}
		}
		if strings.Contains(text, "PING\r\n") {
			if _, err := l.conn.Write([]byte("PONG\r\n")); err != nil {
				return err
			}
		}
	}
}

// empty runs rounds: a broadcast, and a request of every member that is answered.
func empty(b *testing.B, hub transport.Hub, n int, round func() error, answered *atomic.Int32, done chan bool) {
	for b.Loop() {
		answered.Store(0)
		if err := round(); err != nil {
			b.Fatal(err)
		}
		select {
		case <-done:
		case <-time.After(time.Minute):
			b.Fatalf("%d of %d members answered", answered.Load(), n)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/1000/float64(b.N), "ms/round")
	b.ReportMetric(0, "ns/op")
}

func counting(hub transport.Hub, n int) (answered *atomic.Int32, done chan bool) {
	answered, done = new(atomic.Int32), make(chan bool, 1)
	hub.Handle(func(r transport.Request) {
		r.Reply([]byte("thanks"))
		if int(answered.Add(1)) == n {
			done <- true
		}
	})
	return answered, done
}

// BenchmarkRound is an empty round of members that are piped to the server in process, without WebSocket and TLS: what the bus
// itself costs.
func BenchmarkRound(b *testing.B) {
	for _, n := range []int{100, 1000, 10000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			people := newRoster()
			s, err := NewServer(Options{Admit: people.admit})
			if err != nil {
				b.Fatal(err)
			}
			hub := s.Hub()
			defer hub.Close()
			answered, done := counting(hub, n)
			var ready sync.WaitGroup
			ready.Add(n)
			for i := range n {
				conn, err := s.nats.InProcessConn()
				if err != nil {
					b.Fatal(err)
				}
				l := &light{conn: &piped{Conn: conn, s: s}, name: fmt.Sprintf("m%05d", i)}
				go l.run(people.key(b, l.name), ready.Done)
			}
			ready.Wait()
			for len(hub.Present()) < n {
				time.Sleep(time.Millisecond)
			}
			defer func() { // the bridges have no other end
				s.mu.Lock()
				clear(s.bridges)
				s.mu.Unlock()
			}()
			empty(b, hub, n, func() error { return hub.Broadcast([]byte("round")) }, answered, done)
		})
	}
}

// piped is a connection in process that the server takes for one of the Handler.
type piped struct {
	net.Conn
	s    *Server
	once sync.Once
}

func (c *piped) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.once.Do(func() {
		_, rest, _ := strings.Cut(string(p[:n]), `"client_id":`)
		digits, _, _ := strings.Cut(rest, ",")
		id, _ := strconv.ParseUint(strings.Trim(digits, "}\r\n"), 10, 64)
		c.s.mu.Lock()
		defer c.s.mu.Unlock()
		c.s.bridges[id] = &bridge{s: c.s, id: id}
	})
	return n, err
}

// BenchmarkPort is an empty round over the port: WebSocket in TLS on loopback, the members in another process. COHORT_MEMBERS sets
// how many (default 1,000); memory is that of the coordinator alone.
func BenchmarkPort(b *testing.B) {
	n := 1000
	if s := os.Getenv("COHORT_MEMBERS"); s != "" {
		var err error
		if n, err = strconv.Atoi(s); err != nil {
			b.Fatal(err)
		}
	}
	h := open(b, Options{})
	defer h.close()
	hub := h.bus.Hub()
	answered, done := counting(hub, n)
	for i := range n {
		name := lightName(i)
		h.keys[name] = lightKey(b, name)
		h.names[h.keys[name].Public()] = name
	}
	memory := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc + m.StackInuse
	}
	before, begin := memory(), time.Now()
	child := exec.Command(os.Args[0], "-test.run", "^TestLightMembers$", "-test.timeout", "20m")
	child.Env = append(os.Environ(), "COHORT_BUS="+h.http.URL, "COHORT_MEMBERS="+strconv.Itoa(n))
	child.Stderr = os.Stderr
	life, err := child.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := child.Start(); err != nil {
		b.Fatal(err)
	}
	defer child.Wait()
	defer life.Close()
	for len(hub.Present()) < n && time.Since(begin) < 10*time.Minute {
		time.Sleep(10 * time.Millisecond)
	}
	if got := len(hub.Present()); got < n {
		b.Fatalf("%d of %d members are here", got, n)
	}
	b.Logf("%d members connected in %v; %.1f KiB of the coordinator's memory each; %d goroutines", n, time.Since(begin).Round(time.Millisecond),
		float64(memory()-before)/float64(n)/1024, runtime.NumGoroutine())
	if path := os.Getenv("COHORT_HEAP"); path != "" {
		writeHeap(b, path)
	}
	empty(b, hub, n, func() error { return hub.Broadcast([]byte("round")) }, answered, done)
}

func lightName(i int) string { return fmt.Sprintf("m%05d", i) }

func lightKey(t testing.TB, name string) identity.Key {
	seed := sha256.Sum256([]byte(name))
	pair, err := nkeys.FromRawSeed(nkeys.PrefixByteUser, seed[:])
	if err != nil {
		t.Fatal(err)
	}
	text, err := pair.Seed()
	if err != nil {
		t.Fatal(err)
	}
	k, err := identity.ParseKey(string(text))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// TestLightMembers is the other process of [BenchmarkPort]: it ends with its standard input.
func TestLightMembers(t *testing.T) {
	url := os.Getenv("COHORT_BUS")
	if url == "" {
		t.Skip("only as a part of a benchmark")
	}
	n, err := strconv.Atoi(os.Getenv("COHORT_MEMBERS"))
	if err != nil {
		t.Fatal(err)
	}
	slots := make(chan bool, 32)
	go func() {
		for i := range n {
			slots <- true
			go func() {
				d, err := newDialer(&link{done: make(chan struct{})}, DialOptions{URL: url, TLS: &tls.Config{InsecureSkipVerify: true}}) // loopback
				if err != nil {
					fmt.Fprintln(os.Stderr, err)
					return
				}
				conn, err := d.Dial("", "")
				if err != nil {
					fmt.Fprintln(os.Stderr, err)
					return
				}
				name := lightName(i)
				(&light{conn: conn, name: name}).run(lightKey(t, name), func() { <-slots })
			}()
		}
	}()
	io.Copy(io.Discard, os.Stdin)
}

func writeHeap(b *testing.B, path string) {
	f, err := os.Create(path)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	if err := pprof.Lookup("heap").WriteTo(f, 0); err != nil {
		b.Fatal(err)
	}
}
