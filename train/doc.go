// Package train fits and evaluates one model on one data set: the loop that every client, server and organisation uses.
//
// Three nouns:
//   - [Spec]: what one step is: model, loss, mask, clipping, and per group of parameters an [Optimizer].
//   - [Engine]: compiles a spec once for every batch size and shares the programs among all goroutines, so that a
//     thousand virtual clients cost one compilation.
//   - [Session]: one set of weights on the engine, with its optimiser state. [Session.Fit] passes over data,
//     [Session.Step] makes one step, [Session.Evaluate], [Session.Predict], [Session.Gradient] and
//     [Session.Statistics] ask.
//
// Every random number comes from a stream of the caller, and results do not depend on how many sessions run at once:
//
//	e := train.NewEngine(b)
//	s, err := e.Begin(spec, start, train.Options{})
//	defer s.Close()
//	report, err := s.Fit(ctx, train.Fit{Data: mine, Epochs: 5, Batch: 10, Rate: train.Constant(0.1), Random: r})
//	trained, err := s.Params()
//
// A loss that is NaN or infinite is a [*NonFiniteError]. Weights stay in the engine between steps and give their memory
// to their successors.
package train
