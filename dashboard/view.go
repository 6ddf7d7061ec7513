package dashboard

import (
	"bytes"
	"cmp"
	"fmt"
	"html/template"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/cohort-learning/cohort/record"
	"github.com/cohort-learning/cohort/record/report"
)

var pages = template.Must(template.New("").Funcs(template.FuncMap{
	"asset": func(name string) string { return assets[name].url },
	"stamp": stamp,
	"day":   day,
	"hour":  hour,
	"count": func(n any) string { return report.Plain.Format(toFloat(n)) },
	"name":  func(s string) string { return clean(s, maxName) },
	"text":  func(s string) string { return clean(s, maxMessage) },
}).Parse(pageText))

func toFloat(n any) float64 {
	switch n := n.(type) {
	case int:
		return float64(n)
	case int64:
		return float64(n)
	}
	panic(fmt.Sprintf("dashboard: %T is no number", n))
}

// words of states and presences for people.
var words = map[string]string{
	string(Waiting): "waiting", string(Running): "running", string(Paused): "paused", string(Finished): "finished",
	string(Interrupted): "interrupted", string(Failed): "failed",
	string(Invited): "invited", string(Here): "here", string(Working): "working", string(Slow): "slow", string(Gone): "gone",
	string(Left): "left", string(Revoked): "revoked",
}

// Name is how the run is called on the page.
func (r Run) Name() string { return clean(cmp.Or(r.Title, r.ID), maxName) }

// Word is the state for people.
func (s State) Word() string { return cmp.Or(words[string(s)], "unknown") }

// Word is the presence for people.
func (p Presence) Word() string { return cmp.Or(words[string(p)], "unknown") }

// Past is how many rounds are over, of a run under way.
func (r Run) Past() int {
	if r.State.Ended() {
		return r.Round
	}
	return max(0, r.Round-1)
}

// PhaseWord is the phase under way for people. A phase of secure sums is called after the method's phase and its own step, as in
// "train.keys".
func (r Run) PhaseWord() string {
	phase, step, _ := strings.Cut(r.Phase, ".")
	rows := strings.HasPrefix(step, "rows.")
	switch strings.TrimPrefix(step, "rows.") {
	case "session":
		return "setting the terms of a secure sum"
	case "keys":
		return "exchanging keys"
	case "shares":
		return "sharing secrets, should a member be lost"
	case "confirm":
		return "agreeing who is in the sum"
	case "unmask":
		return "opening the sum"
	case "", "masked", "sum":
	default:
		return clean(r.Phase, maxName)
	}
	if rows {
		return "counting labels"
	}
	switch phase {
	case "train":
		return "training"
	case "eval":
		return "measuring at " + r.Many()
	case "test":
		return "measuring on the test set"
	case "stats":
		return "collecting statistics"
	case "rows":
		return "telling which rows there are"
	case "match":
		return "finding out which rows both know"
	case "sketch":
		return "asking whether assistance is worth while"
	case "recompute":
		return "asking for the values of all rounds once more"
	case "predict":
		return "predicting"
	}
	return clean(phase, maxName)
}

// A card is one of the few numbers that matter most. All are always there, so that the page does not jump.
type card struct{ Label, Value, Note string }

func (b *book) cards(r Run, members []Member) []card {
	value := func(chart string) (string, string) {
		p, ok := b.last(chart, b.words.whole)
		if !ok {
			return "–", "not measured yet"
		}
		unit := report.Plain
		if strings.HasPrefix(chart, "accuracy") {
			unit = report.Percent
		}
		return unit.Format(p.y), "after round " + strconv.Itoa(int(p.x))
	}
	title, chart := "Accuracy", "accuracy"
	if _, ok := b.last("rmse", b.words.whole); ok && r.Among { // of a quantity
		title, chart = "RMSE", "rmse"
	}
	accuracy, when := value(chart)
	loss, whenLoss := value("loss")
	round := card{"Round", report.Plain.Format(float64(r.Round)), ""}
	if r.Rounds > 0 {
		round.Note = "of " + report.Plain.Format(float64(r.Rounds))
	}
	present, enrolled := 0, 0
	for _, m := range members {
		switch m.Presence {
		case Here, Working, Slow:
			present, enrolled = present+1, enrolled+1
		case Gone:
			enrolled++
		}
	}
	return []card{
		round,
		{title, accuracy, when},
		{"Loss", loss, whenLoss},
		{b.words.capital + " here", report.Plain.Format(float64(present)), "of " + report.Plain.Format(float64(enrolled)) + " admitted"},
		{"From " + b.words.many, report.Bytes.Format(float64(r.Up)), "all rounds"},
		{"To " + b.words.many, report.Bytes.Format(float64(r.Down)), "all rounds"},
	}
}

// A roster is the list of members as it is shown.
type roster struct {
	Base   string // the page's path
	Show   Presence
	Total  int
	Counts []presenceCount
	Rows   []Member
	Page   int
	Pages  int
	Levels bool // some member has a level
	Prev   string
	Next   string
	First  int
	Last   int
	Of     int
}

type presenceCount struct {
	Presence Presence
	Count    int
	Link     string
	Current  bool
}

// pageMembers is how many members a page shows.
const pageMembers = 100

// A filter is what part of the list of members is asked for.
type filter struct {
	show Presence
	page int
}

func parseFilter(q url.Values) (f filter) {
	if p := Presence(q.Get("show")); slices.Contains(presences, p) {
		f.show = p
	}
	f.page, _ = strconv.Atoi(q.Get("page"))
	f.page = min(max(f.page, 1), 1<<20)
	return f
}

// query writes a filter as the end of a link.
func (f filter) query() string {
	q := url.Values{}
	if f.show != "" {
		q.Set("show", string(f.show))
	}
	if f.page > 1 {
		q.Set("page", strconv.Itoa(f.page))
	}
	if len(q) == 0 {
		return ""
	}
	return "?" + q.Encode()
}

func newRoster(base string, members []Member, f filter) roster {
	r := roster{Base: base, Show: f.show, Total: len(members)}
	counts := map[Presence]int{}
	for _, m := range members {
		counts[m.Presence]++
		r.Levels = r.Levels || m.Level != ""
		if f.show == "" || m.Presence == f.show {
			r.Rows = append(r.Rows, m)
		}
	}
	for _, p := range presences {
		if counts[p] > 0 || p == f.show {
			r.Counts = append(r.Counts, presenceCount{p, counts[p], base + filter{p, 1}.query() + "#members", p == f.show})
		}
	}
	slices.SortFunc(r.Rows, func(a, b Member) int { return natural(a.Name, b.Name) })
	r.Of = len(r.Rows)
	r.Pages = max(1, (r.Of+pageMembers-1)/pageMembers)
	r.Page = min(f.page, r.Pages)
	from := (r.Page - 1) * pageMembers
	r.Rows = r.Rows[from:min(len(r.Rows), from+pageMembers)]
	r.First, r.Last = from+1, from+len(r.Rows)
	if r.Page > 1 {
		r.Prev = base + filter{f.show, r.Page - 1}.query() + "#members"
	}
	if r.Page < r.Pages {
		r.Next = base + filter{f.show, r.Page + 1}.query() + "#members"
	}
	return r
}

// natural compares names so that client-9 comes before client-10.
func natural(a, b string) int {
	i, j := digits(a), digits(b)
	if i < len(a) && j < len(b) && a[:i] == b[:j] {
		x, errX := strconv.ParseUint(a[i:], 10, 64)
		y, errY := strconv.ParseUint(b[j:], 10, 64)
		if errX == nil && errY == nil && x != y {
			return cmp.Compare(x, y)
		}
	}
	return cmp.Compare(a, b)
}

// digits returns where the digits at the end of s begin.
func digits(s string) int {
	i := len(s)
	for i > 0 && s[i-1] >= '0' && s[i-1] <= '9' {
		i--
	}
	return i
}

// RowID is a member's HTML id.
func (m Member) RowID() string { return "member-" + identifier(m.Name) }

// A runView is the page of one run.
type runView struct {
	About  About
	Run    Run
	Base   string
	Stream string // where its events come from
	Cards  []card
	Roster roster
	digest
}

func (v runView) Figures() []figure   { return v.figures }
func (v runView) Lines() []line       { return v.lines }
func (v runView) Failures() []failure { return v.failures }
func (v runView) Failed() int         { return v.failed }

// More is how many lines of the log are not on the page.
func (v runView) More() int { return v.total - len(v.lines) }

// Title stands in the browser's tab: the state first, which is what one looks for among tabs.
func (v runView) Title() string {
	switch {
	case v.Run.State.Ended() || v.Run.Round == 0:
		return v.Run.Name() + " – " + v.Run.State.Word()
	case v.Run.Rounds > 0:
		return fmt.Sprintf("%d/%d %s", v.Run.Round, v.Run.Rounds, v.Run.Name())
	}
	return fmt.Sprintf("%d %s", v.Run.Round, v.Run.Name())
}

// base is the path of a run's page.
func base(id string) string { return "/runs/" + url.PathEscape(id) }

// A part is a piece of a page that is sent anew when it has changed: the inside of the element of that id.
type part struct {
	ID   string `json:"id"`
	HTML string `json:"html"`
}

// parts renders the named templates.
func parts(data any, names ...string) ([]part, error) {
	list := make([]part, len(names))
	for i, name := range names {
		var b bytes.Buffer
		if err := pages.ExecuteTemplate(&b, name, data); err != nil {
			return nil, fmt.Errorf("render %s: %w", name, err)
		}
		list[i] = part{name, b.String()}
	}
	return list, nil
}

// A homeView is the list of runs.
type homeView struct {
	About  About
	Runs   []Run // living ones first, then the newest
	Stream string
}

func (d *Dashboard) homeView() homeView {
	v := homeView{About: d.source.About(), Runs: slices.Clone(d.source.Runs()), Stream: "/events"}
	slices.SortFunc(v.Runs, func(a, b Run) int {
		return cmp.Or(cmp.Compare(btoi(a.State.Ended()), btoi(b.State.Ended())), b.Created.Compare(a.Created), cmp.Compare(a.ID, b.ID))
	})
	return v
}

func (v homeView) Title() string { return cmp.Or(clean(v.About.Federation, maxName), "Cohort") }

// Base is the run's path.
func (r Run) Base() string { return base(r.ID) }

// Warn reports whether a line tells of something that went wrong.
func (l line) Warn() bool { return l.Level == record.Warn || l.Level == record.Error }

// RowID is a run's HTML id.
func (r Run) RowID() string { return "run-" + identifier(r.ID) }
