package provisioner

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v13/controller"
)

// resync only repeats what a lost event would have told.
const resync = 5 * time.Minute

// NewCommand makes the command that serves claims until it is ended.
func NewCommand() *cobra.Command {
	var kubeconfig, path string
	var nodes []string
	command := &cobra.Command{
		Use:   "local-path-provisioner",
		Short: "Bind persistent volume claims to folders on the nodes",
		Args:  cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			folders, err := parseNodes(nodes)
			if err != nil {
				return err
			}
			return serve(command.Context(), kubeconfig, Folders{Path: path, Nodes: folders})
		},
	}
	command.Flags().StringVar(&kubeconfig, "kubeconfig", "", "how to reach the API server")
	command.Flags().StringVar(&path, "path", "", "folder with the volumes, as a node sees it")
	command.Flags().StringArrayVar(&nodes, "node", nil, "NAME=FOLDER: the same folder of that node, as seen from here; repeatable")
	return command
}

func parseNodes(pairs []string) (map[string]string, error) {
	nodes := map[string]string{}
	for _, pair := range pairs {
		name, dir, ok := strings.Cut(pair, "=")
		if !ok || name == "" || dir == "" {
			return nil, fmt.Errorf("--node %q: write NAME=FOLDER", pair)
		}
		nodes[name] = dir
	}
	return nodes, nil
}

func serve(ctx context.Context, kubeconfig string, folders Folders) error {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return fmt.Errorf("read the kubeconfig: %w", err)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("use the kubeconfig: %w", err)
	}
	controller.NewProvisionController(ctx, client, Name, folders,
		controller.LeaderElection(false), controller.ResyncPeriod(resync)).Run(ctx)
	return nil
}
