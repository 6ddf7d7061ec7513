// Package systemtest holds tests of whole federations: real processes of the real program over a real port, which are killed,
// cut off, lied to and flooded. There is nothing to import.
//
// What is drawn at random comes from a seed that is printed; COHORT_SEED gives one. These variables decide what runs beside the
// short tests:
//
//	COHORT_SYSTEM=1         what takes minutes: the federation in network namespaces (root, iproute2 and iptables); secure sums
//	                        whose coordinator and members are killed, or lost for good, in every step
//	COHORT_NETNS=required   fail where that cannot run, instead of skipping it
//	COHORT_LARGE=1          a result of more than 2 GB through the port
//	COHORT_PYTHON=PATH      a member that trains with PyTorch
//	COHORT_KEEP=DIR         the folders of all federations are kept there (an empty folder, to begin with)
//	COHORT_REPORT=FILE      what happened in the namespaces, for docs/results/network-faults.md
//
// With -short only the kills are tested.
package systemtest
