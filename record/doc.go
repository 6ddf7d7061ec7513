// Package record keeps what people look at when a run is over, or while it is
// at work. A run lives in one folder:
//
//	run.json        what the run is and how it ended ([Meta])
//	recipe.yaml     the resolved recipe
//	journal.jsonl   the truth (package journal)
//	lock            held while a process works on the run
//	metrics.sqlite  metrics and events, for queries ([Metrics])
//	checkpoints/    models ([Checkpoints])
//	report.html     the report, with its pictures and tables in report/
//
// Everything but the journal, the recipe and the checkpoints can be made again.
// In particular nobody writes into the metrics: whoever has something to tell
// embeds a [Body] into what it appends to the journal, and [Metrics.Update]
// copies what is new there. So a lost, damaged or outdated database is nothing
// but a little work, and it cannot say anything that the journal does not.
//
// A process that works on a run holds a [Run], made by [Create] or [Resume];
// whoever only looks uses [ReadMeta], [ReadMetrics], [List] and [Checkpoints],
// which change nothing and need no lock.
package record
