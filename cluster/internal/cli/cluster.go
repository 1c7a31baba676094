package cli

import (
	"context"
	"errors"
	"fmt"
	"os"

	"fanfold.dev/cluster/internal/doctor"
	"fanfold.dev/cluster/internal/lifecycle"
	"fanfold.dev/cluster/internal/node"
	"fanfold.dev/cluster/internal/plan"
	"github.com/spf13/cobra"
)

// clusterCommands are what people and make call.
func clusterCommands() []*cobra.Command {
	return []*cobra.Command{up(), down(), status(), load(), nodes(), kubeconfigPath(), checkMachine()}
}

// newCommand makes a command about one cluster, named by flags.
func newCommand(use, short string, args cobra.PositionalArgs, run func(context.Context, lifecycle.Options, []string) error) (*cobra.Command, *lifecycle.Options) {
	options := &lifecycle.Options{}
	command := &cobra.Command{
		Use: use, Short: short, Args: args,
		RunE: func(command *cobra.Command, arguments []string) error {
			return run(command.Context(), *options, arguments)
		},
	}
	command.Flags().StringVar(&options.Name, "name", plan.DefaultName, "name of the cluster; clusters of different names run side by side")
	command.Flags().StringVar(&options.State, "state", "", "folder of its data, certificates and logs (default: that of the running cluster, else "+plan.DefaultState("NAME")+")")
	return command, options
}

func up() *cobra.Command {
	command, options := newCommand("up", "Start what does not run of the cluster; prints the kubeconfig's path last", cobra.NoArgs,
		func(ctx context.Context, options lifecycle.Options, _ []string) error {
			cluster, err := lifecycle.Up(ctx, options, os.Stdout)
			if err != nil {
				return err
			}
			lifecycle.Describe(cluster, os.Stdout)
			return nil
		})
	command.Flags().IntVar(&options.Nodes, "nodes", 0, "number of nodes (default: as it was, else 1)")
	return command
}

func down() *cobra.Command {
	purge := false
	command, _ := newCommand("down", "Stop the cluster; its images and data stay", cobra.NoArgs,
		func(ctx context.Context, options lifecycle.Options, _ []string) error {
			return lifecycle.Down(ctx, options, purge)
		})
	command.Flags().BoolVar(&purge, "purge", false, "remove its images and data too")
	return command
}

func status() *cobra.Command {
	command, _ := newCommand("status", "Show what runs; exit code 0 if all is well, 3 if nothing runs, else 1", cobra.NoArgs,
		func(ctx context.Context, options lifecycle.Options, _ []string) error {
			return lifecycle.Status(ctx, options, os.Stdout)
		})
	return command
}

func load() *cobra.Command {
	command, _ := newCommand("load FILE.tar...", "Import image archives on every node", cobra.MinimumNArgs(1),
		func(ctx context.Context, options lifecycle.Options, archives []string) error {
			return lifecycle.Load(ctx, options, archives, os.Stdout)
		})
	return command
}

func nodes() *cobra.Command {
	parent := &cobra.Command{Use: "node", Short: "Stop one node as a power cut does, or start it again"}
	stop, _ := newCommand("stop NODE", "End a node abruptly: its kubelet, its pods and its network are gone at once", cobra.ExactArgs(1),
		func(ctx context.Context, options lifecycle.Options, arguments []string) error {
			return lifecycle.StopNode(ctx, options, arguments[0])
		})
	start, _ := newCommand("start NODE", "Start a stopped node and wait until pods can run on it", cobra.ExactArgs(1),
		func(ctx context.Context, options lifecycle.Options, arguments []string) error {
			return lifecycle.StartNode(ctx, options, arguments[0], os.Stdout)
		})
	parent.AddCommand(stop, start)
	return parent
}

func kubeconfigPath() *cobra.Command {
	command, _ := newCommand("kubeconfig", "Print the kubeconfig's path", cobra.NoArgs,
		func(_ context.Context, options lifecycle.Options, _ []string) error {
			path, err := lifecycle.Kubeconfig(options)
			if err == nil {
				fmt.Println(path)
			}
			return err
		})
	return command
}

func checkMachine() *cobra.Command {
	return &cobra.Command{
		Use: "doctor", Short: "Say what this machine lacks, and how to get it", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return doctor.Check() },
	}
}

// exitCode tells "does not run" from "does not work", as service managers do.
func exitCode(err error) int {
	if errors.Is(err, lifecycle.ErrNotRunning) {
		return 3
	}
	return 1
}

// internalCommands are how this binary calls itself.
func internalCommands() []*cobra.Command {
	return []*cobra.Command{
		internalCommand("supervise", func(ctx context.Context, of plan.Node) error { return lifecycle.Supervise(ctx, of.Cluster) }),
		internalCommand("node-init", node.Init),
	}
}

func internalCommand(use string, run func(context.Context, plan.Node) error) *cobra.Command {
	of := plan.Node{}
	command := &cobra.Command{
		Use: use, Hidden: true, Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			if err := of.Cluster.Check(); err != nil {
				return err
			}
			return run(command.Context(), of)
		},
	}
	command.Flags().StringVar(&of.Cluster.Name, "name", "", "")
	command.Flags().StringVar(&of.Cluster.State, "state", "", "")
	command.Flags().IntVar(&of.Cluster.Slot, "slot", 0, "")
	command.Flags().IntVar(&of.Cluster.Nodes, "nodes", 0, "")
	command.Flags().IntVar(&of.Number, "number", 0, "")
	return command
}
