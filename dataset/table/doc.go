// Package table reads tables as people have them, for learning from columns: numbers, words, dates, gaps, a key that names
// each row, a target chosen by name.
//
// [Open] finds out what the columns are; the outcome, an [Encoding], is kept, so that later tables (rows to predict for, a newer
// version) become features alike:
//
//	number    one feature; NaN where it is missing
//	category  one feature a word, 1 where the row holds it; words that few rows hold, and words not seen before, are one, "other"
//	date      days since 1970, and where in the year and the week (and the day, if there are times) it lies, on circles
//
// A column with gaps has one feature more, 1 where the value is missing. What stands for NaN is the learner's choice: some can
// take it as it is.
package table
