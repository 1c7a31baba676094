package cli

import (
	"context"
	"fmt"
	"io"
	"os"

	"fanfold.dev/cluster/internal/bare"
	"github.com/spf13/cobra"
)

func controlPlane() *cobra.Command {
	options := bare.Options{}
	command := &cobra.Command{
		Use:   "control-plane",
		Short: "An API server and etcd alone, on free loopback ports: to test operators against",
	}
	command.PersistentFlags().StringVar(&options.State, "state", "", "folder of data, certificates and logs (required)")
	_ = command.MarkPersistentFlagRequired("state") // fails only for a flag that is not there
	command.AddCommand(controlPlaneRun(&options), controlPlaneUp(&options), controlPlaneDown(&options))
	return command
}

func controllersFlag(command *cobra.Command, options *bare.Options) {
	command.Flags().BoolVar(&options.Controllers, "controller-manager", false,
		"run the controller manager too: garbage collection, Deployments, service accounts")
}

func controlPlaneRun(options *bare.Options) *cobra.Command {
	command := &cobra.Command{
		Use:   "run",
		Short: "Serve until SIGTERM, or until standard input closes if that is a pipe; prints READY kubeconfig=PATH",
		Args:  cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			return bare.Run(untilInputCloses(command.Context()), *options, os.Stdout)
		},
	}
	controllersFlag(command, options)
	return command
}

// untilInputCloses ties the command to whoever holds the other end of its standard input, so that it never outlives a
// killed test run. Only a pipe tells that; /dev/null and terminals don't.
func untilInputCloses(ctx context.Context) context.Context {
	info, err := os.Stdin.Stat()
	if err != nil || info.Mode()&(os.ModeNamedPipe|os.ModeSocket) == 0 {
		return ctx
	}
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // any end of the input is the end
		cancel()
	}()
	return ctx
}

func controlPlaneUp(options *bare.Options) *cobra.Command {
	command := &cobra.Command{
		Use:   "up",
		Short: "Serve in the background; prints the kubeconfig's path when ready",
		Args:  cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			path, err := bare.Up(command.Context(), *options)
			if err == nil {
				fmt.Println(path)
			}
			return err
		},
	}
	controllersFlag(command, options)
	return command
}

func controlPlaneDown(options *bare.Options) *cobra.Command {
	return &cobra.Command{
		Use:   "down",
		Short: "Stop it; the data stays",
		Args:  cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			return bare.Down(command.Context(), options.State)
		},
	}
}
