// Package report turns a run into a page that a person likes to read: one HTML
// file that needs nothing else, with its pictures as PNG and its curves as CSV
// beside it.
//
// Three nouns: a [Report] is plain data, sections of charts, tables and images
// that the caller fills; a [Run] is a finished or running run from which
// [Run.Report] fills one; [Compare] fills one from several runs of several
// settings, with mean and standard deviation over seeds.
//
//	r, err := report.Run{Meta: meta, Metrics: metrics, Levels: levels}.Report()
//	files, err := r.Write(journal.OS(), dir) // report.html, report/accuracy.png, …
//
// # Names of metrics
//
// Run and Compare know these names; their key is a level, or "" for the whole.
// Any other metric gets a plain chart of its own.
//
//	accuracy           global model on the test set; with a level, its sub-model
//	accuracy.local     global model on the test data of all clients together;
//	                   .mean over clients, .worst over the worst tenth of them
//	accuracy.personal  the same of the clients' own models
//	loss               mean loss on the test set (nats); loss.local and
//	                   loss.personal on the test data of the clients
//	loss.train         mean training loss of the round's clients (nats)
//	perplexity         exp of the mean loss of a language model
//	bytes.up           bytes from clients to server in the round
//	bytes.down         bytes from server to clients in the round
//	bytes.protocol     bytes both ways that secure sums needed beside
//	epsilon            ε of differential privacy that was spent so far
//	clip               bound of the L2 norm of an update
//	secure.members     clients whose results are in a secure sum
//	secure.sent        part of the model that enough clients held, in [0, 1]
//	flops              floating-point operations of the round's clients
//
// Accuracies are fractions of 1. One series has the same colour in all charts
// of a report.
package report
