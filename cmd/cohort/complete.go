package main

import (
	"github.com/cohort-learning/cohort/methods"
	"github.com/spf13/cobra"
)

// Completions of arguments.

func completeRecipes(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return []string{"yaml", "yml"}, cobra.ShellCompDirectiveFilterFileExt
}

func completeRuns(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return runNames(), cobra.ShellCompDirectiveDefault
}

func completeMethods(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveDefault
	}
	return methods.Names(), cobra.ShellCompDirectiveNoFileComp
}
