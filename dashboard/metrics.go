package dashboard

import (
	"cmp"
	"runtime"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// collector turns what the Source says into metrics whenever somebody scrapes: nothing is counted here.
type collector struct{ source Source }

// scrapedRuns is how many runs have series of their own: those that live and the newest.
const scrapedRuns = 50

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("cohort_"+name, help, labels, nil)
}

var (
	buildInfo    = desc("build_info", "1; the labels say which program this is.", "version", "go", "federation")
	startTime    = desc("start_time_seconds", "When the coordinator's process began, in Unix time.")
	runsByState  = desc("runs", "Runs by state.", "state")
	roundNow     = desc("run_round", "Round under way, from 1; of a run that ended, the last.", "run")
	roundsAll    = desc("run_rounds_planned", "Rounds that the run is planned for.", "run")
	roundsDone   = desc("run_rounds_closed_total", "Rounds closed.", "run")
	phaseAsked   = desc("run_phase_asked", "Members asked in the phase under way.", "run", "phase")
	phaseDone    = desc("run_phase_answered", "Members of those asked who have answered or failed.", "run", "phase")
	membersNow   = desc("run_members", "Members by where they are.", "run", "state")
	bytesTotal   = desc("run_bytes_total", "Bytes of the run's tensors, by direction: up is from members.", "run", "direction")
	resultsTotal = desc("results_total", "Results by verdict (accepted, duplicate, late, refused) and, where refused, stable code.", "verdict", "code")
	unfoldedNow  = desc("results_unfolded", "Results accepted and not yet folded.")
	permitsNow   = desc("permits_waiting", "Members that wait for a permit to send a result.")
	permitsTotal = desc("permits_total", "Permits given.")
	appendsTotal = desc("journal_appends_total", "Records appended to journals.")
	syncsTotal   = desc("journal_syncs_total", "Syncs of journals to disk; several appends may share one.")
	syncSeconds  = desc("journal_sync_seconds_total", "Seconds spent in syncs of journals.")
	refusedTotal = desc("connections_refused_total", "Connections refused at the public port, by reason.", "reason")
	connections  = desc("connections", "Connections open at the public port.")
)

// Describe implements [prometheus.Collector].
func (c collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{buildInfo, startTime, runsByState, roundNow, roundsAll, roundsDone, phaseAsked, phaseDone, membersNow,
		bytesTotal, resultsTotal, unfoldedNow, permitsNow, permitsTotal, appendsTotal, syncsTotal, syncSeconds, refusedTotal, connections} {
		ch <- d
	}
}

// Collect implements [prometheus.Collector].
func (c collector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counter := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
	}
	about := c.source.About()
	gauge(buildInfo, 1, label(about.Version), runtime.Version(), label(about.Federation))
	gauge(startTime, float64(about.Started.UnixMilli())/1000)

	runs := slices.Clone(c.source.Runs())
	states := map[State]int{Waiting: 0, Running: 0, Paused: 0, Finished: 0, Interrupted: 0, Failed: 0}
	for _, r := range runs {
		states[r.State]++
	}
	for s, n := range states {
		gauge(runsByState, float64(n), label(string(s)))
	}
	slices.SortFunc(runs, func(a, b Run) int {
		return cmp.Or(cmp.Compare(btoi(a.State.Ended()), btoi(b.State.Ended())), b.Created.Compare(a.Created))
	})
	for i, r := range runs {
		if i >= scrapedRuns && r.State.Ended() {
			break
		}
		id := label(r.ID)
		gauge(roundNow, float64(r.Round), id)
		gauge(roundsAll, float64(r.Rounds), id)
		counter(roundsDone, float64(r.Past()), id)
		counter(bytesTotal, float64(r.Up), id, "up")
		counter(bytesTotal, float64(r.Down), id, "down")
		if r.State.Ended() {
			continue
		}
		if r.Phase != "" {
			gauge(phaseAsked, float64(r.Asked), id, label(r.Phase))
			gauge(phaseDone, float64(r.Answered), id, label(r.Phase))
		}
		where := map[Presence]int{}
		for _, p := range presences {
			where[p] = 0
		}
		for _, m := range c.source.Members(r.ID) {
			where[m.Presence]++
		}
		for p, n := range where {
			gauge(membersNow, float64(n), id, label(string(p)))
		}
	}

	n := c.source.Counters()
	type outcome struct{ verdict, code string }
	results := map[outcome]uint64{{"accepted", ""}: 0, {"duplicate", ""}: 0, {"late", ""}: 0, {"refused", ""}: 0}
	for _, v := range n.Verdicts { // twice the same would spoil the whole scrape
		results[outcome{label(v.Verdict), label(v.Code)}] += v.Count
	}
	for o, count := range results {
		counter(resultsTotal, float64(count), o.verdict, o.code)
	}
	gauge(unfoldedNow, float64(n.Unfolded))
	gauge(permitsNow, float64(n.Waiting))
	counter(permitsTotal, float64(n.Permits))
	counter(appendsTotal, float64(n.Appends))
	counter(syncsTotal, float64(n.Syncs))
	counter(syncSeconds, n.SyncTime.Seconds())
	for reason, count := range n.Refused {
		counter(refusedTotal, float64(count), label(reason))
	}
	gauge(connections, float64(n.Connections))
}

// label makes a text fit for a label, which must be valid UTF-8.
func label(s string) string { return clean(s, maxName) }

// newRegistry returns a registry of the page's own: the coordinator's metrics and those of its process.
func newRegistry(s Source) *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collector{s}, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}
