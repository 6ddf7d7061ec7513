// Package dataset reads data sets into memory, draws some of its own, and deals them out to clients.
//
// Three nouns carry it:
//
//   - [Examples] holds one data set, one row an example: images as bytes, features as float32, or token ids. Fill turns
//     chosen rows into a normalised, augmented batch, NHWC.
//   - [Partition] says which rows belong to which client. It is stored flat (4 bytes a sample, 8 bytes a client), so
//     that a hundred thousand clients cost little more than a hundred. A [Scheme] makes one: IID, K classes a client,
//     shards, Dirichlet, quantity or feature skew, or a natural key such as the writer.
//   - [View] is one client's share: the data and its rows.
//
// A data set is loaded by name or from the user's own files ([Load], [Catalogue]): IDX, CIFAR, folders of PNG and JPEG,
// CSV, token files; or it is drawn at run time from nothing but fonts ([Glyphs]) or from a formula ([Synthetic], [TwoLevel]).
//
//	split, err := dataset.Load(ctx, dataset.Spec{Name: "glyphs", Size: 16, Train: 6000, Test: 1000})
//	dealt, err := dataset.Scheme{Name: "classes", Clients: 100, PerClient: 2}.Deal(split.Train, split.Test, seed)
//	mine := dataset.View{Data: split.Train, Rows: dealt.Train.Rows(7)}
//
// Everything random is a pure function of the data, the parameters and a seed. Every decoder is bounded: a damaged or
// hostile file gives an error that names the file and the byte (or line and column), never a panic, and never an
// allocation out of proportion to what was really read (a picture: 2^26 pixels). Nothing is ever downloaded.
package dataset
