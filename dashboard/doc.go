// Package dashboard is the page of a coordinator: its runs, alive and over, in a browser, and its counters for Prometheus.
//
// Three nouns: a [Source] is what the page asks of the coordinator, which implements it; a [Feed] carries what happens in a
// living run to whoever looks; a [Dashboard] is the [http.Handler] over both.
//
//	d := dashboard.New(dashboard.Options{Source: coordinator})
//	mux.Handle("/", d)                    // the whole site but what has a longer pattern
//	fmt.Println(url + d.Link())           // what `cohort status --link` prints
//
// # What it serves
//
//	GET  /                       runs
//	GET  /runs/{id}              one run; ?show=gone&page=2 narrows the list of members
//	GET  /runs/{id}/events       the same, as it happens (server-sent events)
//	GET  /runs/{id}/report       the report
//	GET  /runs/{id}/model        the model, to download
//	GET  /runs/{id}/metrics.csv  every number
//	GET  /runs/{id}/log.txt      every line of the log
//	GET  /events                 the list of runs, as it changes
//	GET  /login?token=…          a link that works once
//	POST /logout
//	GET  /metrics                for Prometheus
//
// Everything needs a session, /metrics a session or a bearer token; whoever has none gets 401 and is told how to come by a
// link. The page only reads. It needs nothing from elsewhere: the one library, uPlot, is part of the binary.
//
// # How it stays complete
//
// Pages are rendered here and are complete without a script: a reload shows the state. With a script, the parts of the page
// that change are rendered by the same templates, sent as events, and swapped in. An event's ID says how far its reader has come
// in the run's feed; one that comes back with Last-Event-ID is sent what it missed or, if that is forgotten or the coordinator has
// been restarted, the whole page anew. Log lines and points have identities, so that to be sent twice changes nothing.
//
// # Strangers
//
// Names of members and texts of failures are written by others. They are stripped of control and direction characters, cut to
// a length, and escaped; the content security policy allows no script and no style but the page's own.
package dashboard
