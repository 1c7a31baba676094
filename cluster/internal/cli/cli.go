// Package cli is the command line: it reads flags and calls the packages that do the work.
package cli

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

// Run executes the command line and returns the exit code. components are listed in the help.
func Run(components []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := root(components).ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "fanfold-cluster:", err)
		return exitCode(err)
	}
	return 0
}

func root(components []string) *cobra.Command {
	command := &cobra.Command{
		Use:           "fanfold-cluster",
		Short:         "A real Kubernetes on one machine, without Docker",
		Long:          fmt.Sprintf("A real Kubernetes on one machine, without Docker.\n\nAs first argument or by the name it is called with, it also is each of %v.", components),
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	command.CompletionOptions.DisableDefaultCmd = true
	command.AddCommand(clusterCommands()...)
	command.AddCommand(controlPlane())
	command.AddCommand(internalCommands()...)
	return command
}
