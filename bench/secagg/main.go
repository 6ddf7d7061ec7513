// Command secagg measures what secure aggregation costs a member and the server, beside published figures.
//
//	go run ./bench/secagg                                    # 100 and 1,000 members, 100,000 words: minutes
//	go run ./bench/secagg -members 100 -graph complete -json
//
// It runs whole sessions in one process, every message through its encoding, with Ed25519 signatures, and checks the sums. Members
// who drop out do so after sharing and before sending, the dearest moment for the server. Times are processor seconds of this
// process: of one member on average, and of the server for adding all vectors and for recovery. Signatures are verified by some
// members only, whom the figures are of, since on one machine n members verify n² of them.
package main

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"time"
)

func main() {
	members := flag.String("members", "100,1000", "numbers of members")
	sizes := flag.String("size", "100000", "words of the vector")
	graphs := flag.String("graph", "sparse,complete", "`graphs`: sparse (10% corrupt, as many lost as planned, curious coordinator), complete (t = ⌊2n/3⌋+1, malicious)")
	lost := flag.String("lost", "0,10,30", "percent of the members lost")
	bits := flag.Int("bits", 64, "bits a word")
	asJSON := flag.Bool("json", false, "print JSON instead of a table")
	flag.Parse()
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt)
	defer cancel()
	if err := measure(ctx, *members, *sizes, *graphs, *lost, *bits, *asJSON); err != nil {
		fmt.Fprintln(os.Stderr, "secagg:", err)
		os.Exit(1)
	}
}

// row is one line of the result. Seconds are processor time.
type row struct {
	Who       string  `json:"who"` // "here" or the publication
	Graph     string  `json:"graph"`
	Members   int     `json:"members"`
	Neighbour int     `json:"neighbours"`
	Threshold int     `json:"threshold,omitempty"`
	Size      int     `json:"size"`
	Bits      int     `json:"bits"`
	Lost      int     `json:"lost_percent"`
	Keys      float64 `json:"member_keys_s,omitempty"` // of which the member's figure consists
	Shares    float64 `json:"member_shares_s,omitempty"`
	Mask      float64 `json:"member_mask_s,omitempty"`
	Unmask    float64 `json:"member_unmask_s,omitempty"`
	Member    float64 `json:"member_s"`
	Server    float64 `json:"server_s"`
	Recovery  float64 `json:"server_recovery_s,omitempty"`
	Wall      float64 `json:"server_recovery_wall_s,omitempty"`
	Up        int     `json:"member_up_bytes,omitempty"`
	Down      int     `json:"member_down_bytes,omitempty"`
	Note      string  `json:"note,omitempty"`
}

// published are running times of Bonawitz et al. (CCS 2017), table of section 7: 100,000 entries of 62 bits, single-threaded Java on
// a 3.5 GHz Xeon, honest-but-curious protocol without signatures; quoted from memory and to be checked against the paper before
// they are quoted further. Bell et al. (CCS 2020) print no such table.
var published = []row{
	{Members: 500, Lost: 0, Member: .849, Server: 2.018},
	{Members: 500, Lost: 10, Member: .849, Server: 62.239},
	{Members: 500, Lost: 30, Member: .849, Server: 143.389},
	{Members: 1000, Lost: 0, Member: 1.699, Server: 4.887},
	{Members: 1000, Lost: 10, Member: 1.699, Server: 180.875},
	{Members: 1000, Lost: 30, Member: 1.699, Server: 413.767},
}

func numbers(list string) (out []int, err error) {
	for _, s := range strings.Split(list, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(s))
		if err != nil {
			return nil, fmt.Errorf("%q in %q: expected whole numbers with commas between them", s, list)
		}
		out = append(out, n)
	}
	return out, nil
}

func measure(ctx context.Context, members, sizes, graphs, lost string, bits int, asJSON bool) error {
	ns, err1 := numbers(members)
	ds, err2 := numbers(sizes)
	ls, err3 := numbers(lost)
	if err := cmp.Or(err1, err2, err3); err != nil {
		return err
	}
	out := json.NewEncoder(os.Stdout)
	line := func(cells ...any) {
		fmt.Printf("%-13s %-8s %5v %4v %4v %9v %5v %8v %8v %8v %8v %8v %8v %8v %7v %7v\n", cells...)
	}
	emit := func(r row) {
		if asJSON {
			_ = out.Encode(r)
			return
		}
		line(r.Who, r.Graph, r.Members, r.Neighbour, cell(float64(r.Threshold)), fmt.Sprintf("%d×%d", r.Size, r.Bits), fmt.Sprintf("%d%%", r.Lost),
			cell(r.Keys), cell(r.Shares), cell(r.Mask), cell(r.Unmask), cell(r.Member), cell(r.Server), cell(r.Wall), kilo(r.Up), kilo(r.Down))
	}
	if !asJSON {
		fmt.Printf("%s, %s/%s, %d processors; seconds of processor time (wall: seconds), kB of 1000 bytes\n",
			runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.GOMAXPROCS(0))
		line("who", "graph", "n", "k", "t", "words", "lost", "keys", "shares", "mask", "unmask", "member", "server", "wall", "up kB", "down kB")
	}
	for _, n := range ns {
		for _, d := range ds {
			for _, g := range strings.Split(graphs, ",") {
				if err := run(ctx, n, d, bits, g, ls, emit); err != nil {
					return fmt.Errorf("%d members, %d words, %s graph: %w", n, d, g, err)
				}
			}
		}
	}
	for _, r := range published {
		r.Who, r.Graph, r.Neighbour, r.Size, r.Bits = "Bonawitz 2017", "complete", r.Members-1, 100_000, 62
		r.Note = "CCS 2017, section 7, from memory; 3.5 GHz Xeon, single thread"
		emit(r)
	}
	if !asJSON {
		fmt.Println("Bonawitz 2017: their table, quoted from memory; other machine, other language, no signatures.")
	}
	return nil
}

func cell(x float64) string {
	if x == 0 {
		return "–"
	}
	return strconv.FormatFloat(x, 'g', 3, 64)
}

func kilo(n int) string {
	if n == 0 {
		return "–"
	}
	return strconv.FormatFloat(float64(n)/1000, 'f', 0, 64)
}

// book knows everyone's key; one that is lax takes every signature.
type book struct {
	keys map[string]ed25519.PublicKey
	lax  bool
}

func (b book) Pinned(string) bool { return true }

func (b book) Verify(name string, msg, sig []byte) error {
	if b.lax || ed25519.Verify(b.keys[name], msg, sig) {
		return nil
	}
	return fmt.Errorf("bad signature")
}

// watch measures processor time.
type watch struct{ from time.Duration }

func begin() watch               { return watch{processor()} }
func (w watch) seconds() float64 { return (processor() - w.from).Seconds() }
