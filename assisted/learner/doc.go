// Package learner is every organisation's own kind of model behind one small interface, so that organisations can assist
// each other without agreeing on a model, or even telling which one they use.
//
// Three nouns:
//   - [Learner]: fits targets from features; [Classifier] fits classes.
//   - [Model]: what was fitted. It predicts, and has a binary form that [Decode] reads back.
//   - [Spec]: a learner and its options by name, for recipes.
//
// A learner is asked for residuals in every round and never knows of what:
//
//	l, err := learner.Spec{Name: "ridge"}.New()
//	model, err := l.Fit(ctx, x, residuals, nil, rng.New(seed, round, "hospital", "fit"))
//	fitted, err := model.Predict(x)
//
// Features x are n×d, rows are entities; targets y are n×k; weights w count how often a row stands in the data: weight 2 is
// the row twice, weight 0 leaves it out, nil is 1 for all. A NaN among the features is a missing value. Trees send missing
// values to the side that fits better; all others take the weighted mean of the column's known values in the data that were
// fitted. Learners for which the scale of a column matters standardise by their own training rows. An infinite feature, a
// target that is no finite number, a wrong shape or no row at all is an error that says where: [ValueError], [ShapeError],
// [ErrNoRows].
//
// A matrix of no columns cannot exist in gonum: whoever has no features gives an empty matrix to Fit and gets the mean.
//
// An organisation's own program is a learner, too: [WithProgram]. Networks (mlp, cnn, lstm) are models of package nn that package train
// fits; a [Sharer] keeps one for all rounds, with a head a round.
//
// Models interpolate if they are allowed to: a deep tree or a nearest neighbour returns residuals that are almost 0 and
// nobody after it learns anything. The defaults are tame, and [OutOfBag] tells what a forest would say of rows that it
// has not seen. Equal data and an equal stream give equal bits for any number of threads.
package learner
