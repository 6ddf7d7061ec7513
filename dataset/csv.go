package dataset

// Encoding says how the columns of a table became features.
type Encoding struct{}
