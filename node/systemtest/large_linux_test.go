package systemtest

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cohort-learning/cohort/blob"
	"github.com/cohort-learning/cohort/blob/web"
	"github.com/cohort-learning/cohort/identity"
	"github.com/cohort-learning/cohort/node/gate"
)

func init() {
	roles["depot"] = depot
	roles["giver"] = giver
	roles["taker"] = taker
}

// large is more bytes than 32 bits count.
const large = 2_200_000_000

// depot is the part of a coordinator that stores results: DIR LISTEN HASH GIVER-KEY TAKER-KEY. The one may send the blob, the
// other get it.
func depot(args []string) error {
	dir, listen := args[0], args[1]
	var h blob.Hash
	if err := h.UnmarshalText([]byte(args[2])); err != nil {
		return err
	}
	names := map[string]string{args[3]: "giver", args[4]: "taker"}
	ca, err := identity.LoadAuthority(filepath.Join(dir, "ca.pem"))
	if err != nil {
		return err
	}
	source, err := identity.NewSource(ca, []string{"127.0.0.1"}, time.Now)
	if err != nil {
		return err
	}
	store, err := blob.OpenDir(filepath.Join(dir, "blobs"), nil)
	if err != nil {
		return err
	}
	permits := web.NewPermits()
	permits.Issue("giver", h, large, time.Now().Add(time.Hour))
	permits.Grant("taker", h, time.Now().Add(time.Hour))
	g := gate.New(gate.Options{Certificate: source.Certificate, Member: func(p identity.Public) (string, bool) {
		name, ok := names[p.String()]
		return name, ok
	}})
	g.HandleMembers("/blob/", web.NewHandler(store, web.HandlerOptions{Who: g.Who, Permits: permits, Log: slog.New(slog.NewTextHandler(os.Stdout, nil))}))
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	fmt.Println("open")
	return g.Serve(l)
}

// carrier is a member's end.
func carrier(args []string) (store *blob.Dir, c *web.Client, err error) {
	key, err := identity.LoadKey(filepath.Join(args[0], "key"))
	if err != nil {
		return nil, nil, err
	}
	var ca identity.Fingerprint
	if err := ca.UnmarshalText([]byte(args[2])); err != nil {
		return nil, nil, err
	}
	hc, err := identity.HTTPClient(key, args[1], identity.NewTrust(ca), nil)
	if err != nil {
		return nil, nil, err
	}
	store, err = blob.OpenDir(filepath.Join(args[0], "store"), nil)
	return store, web.NewClient(hc, args[1]), err
}

func tell(what string) web.Progress {
	next := int64(0)
	return func(done, total int64) {
		if done >= next {
			fmt.Printf("%s %d MB of %d\n", what, done/1e6, total/1e6)
			next = done + 50e6
		}
	}
}

// giver makes random bytes and sends them: DIR URL CA.
func giver(args []string) error {
	store, c, err := carrier(args)
	if err != nil {
		return err
	}
	r := rand.NewChaCha8([32]byte{7})
	h, m, err := blob.Write(context.Background(), store, io.LimitReader(r, large))
	if err != nil {
		return err
	}
	fmt.Printf("made %s %d\n", h, m.Bytes)
	return c.UploadProgress(context.Background(), store, h, tell("sent"))
}

// taker gets them and reads them through: DIR URL CA HASH.
func taker(args []string) error {
	store, c, err := carrier(args)
	if err != nil {
		return err
	}
	var h blob.Hash
	if err := h.UnmarshalText([]byte(args[3])); err != nil {
		return err
	}
	if err := c.DownloadProgress(context.Background(), store, h, tell("got")); err != nil {
		return err
	}
	b, err := blob.Open(context.Background(), store, h)
	if err != nil {
		return err
	}
	defer b.Close()
	n, err := io.Copy(io.Discard, b)
	fmt.Printf("read %d\n", n)
	return err
}

// TestLarge moves a result of more than 2 GB from a member to a coordinator, which is killed in the middle and started again,
// and from there to another member, which is killed in the middle and started again. Nobody needs much memory for it.
func TestLarge(t *testing.T) {
	if os.Getenv("COHORT_LARGE") == "" {
		t.Skip("7 GB of disk and a few minutes: COHORT_LARGE=1 runs it")
	}
	dir := t.TempDir()
	ca, err := identity.NewAuthority("large", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if err := ca.Save(filepath.Join(dir, "ca.pem")); err != nil {
		t.Fatal(err)
	}
	keys := map[string]string{}
	for _, who := range []string{"giver", "taker"} {
		k, err := identity.NewKey()
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(filepath.Join(dir, who), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := k.Save(filepath.Join(dir, who, "key")); err != nil {
			t.Fatal(err)
		}
		keys[who] = k.Public().String()
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	listen := "127.0.0.1:" + strconv.Itoa(freePort(t))
	url, pin := "https://"+listen, ca.Fingerprint().String()
	out := map[string]*transcript{}
	for _, who := range []string{"depot", "giver", "taker"} {
		out[who] = newTranscript(t, filepath.Join(dir, who+".log"))
	}
	play := func(role string, args ...string) *process {
		return start(t, role, out[role], []string{roleName + "=" + role}, append([]string{self}, args...)...)
	}
	began := time.Now()
	say := func(format string, args ...any) {
		t.Logf("%6.1f s  %s", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
	}
	g := play("giver", filepath.Join(dir, "giver"), url, pin)
	made := g.await(t, `made (\S+) (\d+)`, 1)[0]
	say("made %s bytes", made[2])
	openDepot := func() *process { return play("depot", dir, listen, made[1], keys["giver"], keys["taker"]) }
	d := openDepot()
	g.await(t, `sent 1[01]\d\d MB`, 1)
	say("SIGKILL for the coordinator after half: its peak was %s", peak(t, d))
	d.kill()
	d = openDepot()
	giverPeak := watch(t, g)
	say("all is sent, peak of the sender %s", giverPeak)
	begin := time.Now()
	k := play("taker", filepath.Join(dir, "taker"), url, pin, made[1])
	k.await(t, `got 1[01]\d\d MB`, 1)
	say("SIGKILL for the receiver after half: its peak was %s", peak(t, k))
	k.kill()
	k = play("taker", filepath.Join(dir, "taker"), url, pin, made[1])
	takerPeak := watch(t, k)
	say("all is there after %.1f s, peak of the receiver %s, of the coordinator %s", time.Since(begin).Seconds(), takerPeak, peak(t, d))
	if found := k.await(t, `read (\d+)`, 1)[0]; found[1] != strconv.Itoa(large) {
		t.Errorf("%s bytes came", found[1])
	}
	again := out["taker"].lines(`^got `)
	say("after its restart the receiver began at: %s", again[len(again)/2])
	for who, text := range map[string]string{"coordinator": peak(t, d), "sender": giverPeak, "receiver": takerPeak} {
		if mb, err := strconv.Atoi(strings.TrimSuffix(text, " MB")); err != nil || mb > 300 {
			t.Errorf("the %s needed %s of memory", who, text)
		}
	}
}

// watch waits for a process to end well, and returns its peak.
func watch(t *testing.T, p *process) (most string) {
	t.Helper()
	for p.running() {
		if now := peak(t, p); now != "?" {
			most = now
		}
		time.Sleep(50 * time.Millisecond)
	}
	p.succeed(t)
	return most
}

var highest = regexp.MustCompile(`VmHWM:\s+(\d+) kB`)

// peak is the most memory that a process has had so far.
func peak(t *testing.T, p *process) string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return "?"
	}
	found := highest.FindSubmatch(text)
	if found == nil {
		return "?"
	}
	kb, err := strconv.Atoi(string(found[1]))
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%d MB", kb/1000)
}
