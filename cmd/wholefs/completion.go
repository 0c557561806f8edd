package main

import "github.com/spf13/cobra"

// The verb completion itself, which prints a script for bash, zsh, fish or
// powershell, is cobra's. Here is what the scripts ask for.

// completeMountpoints offers the mounts there are.
func completeMountpoints(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	mounts, err := readMounts()
	if err != nil || len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []cobra.Completion
	for _, m := range ourMounts(mounts) {
		names = append(names, m.mountpoint)
	}
	return names, cobra.ShellCompDirectiveDefault
}
