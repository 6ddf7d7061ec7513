// Package cohort is the root of the module of Cohort, a program with which organisations and devices learn together without
// handing over their data. It holds no code: the program is cmd/cohort, and docs/architecture.md is the way in.
package cohort
