// Package linkage says from shared fields, such as names and dates of birth, how likely it is that two records are of the same
// entity: probabilistic record linkage after Fellegi and Sunter, A Theory for Record Linkage, JASA 1969.
//
// Every field of a pair of records agrees to a [Level]. Of pairs that belong together, field f has level l with probability m_f(l),
// of other pairs with probability u_f(l), fields independently of each other. What the fields say of a pair is the log-odds
//
//	s = Σ_f log m_f(γ_f) − log u_f(γ_f)
//
// M and u are not known, and neither is which pairs belong together; expectation maximisation finds both from how often each pattern
// of levels occurs ([Estimate]; Winkler 1988, Jaro 1989). A field that agrees by chance often, such as a sex, weighs little; one that
// hardly ever does, such as a full name, weighs much; a field that is missing in one of the two records weighs nothing.
//
// [Compare] compares the records of two tables within blocks, and [Pairs.Evidence] is what package mismatch takes into its plan: the
// log-odds take the place of equal chances for all rows of a block.
//
// # Caveats
//
// All pairs of a block are compared: a block of n rows is n² pairs, and a table of more than [MostPairs] is refused. With a single field
// the estimate leans on where it begins, that nine in ten pairs that belong together agree. Fields that go together, such as street
// and postcode, are counted as if they were independent: compare one of them.
package linkage
