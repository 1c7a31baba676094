package lifecycle

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"fanfold.dev/cluster/internal/doctor"
	"fanfold.dev/cluster/internal/pauseimage"
	"fanfold.dev/cluster/internal/plan"
)

const (
	// importLimit bounds the import of one archive: images of gigabytes take a minute.
	importLimit = 10 * time.Minute
	ctr         = "/usr/bin/ctr"
	// kubeletNamespace is where the kubelet's containerd looks for images.
	kubeletNamespace = "k8s.io"
)

// runCtr runs containerd's client on a node's containerd and returns what it printed.
func runCtr(ctx context.Context, n plan.Node, input io.Reader, arguments ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, importLimit)
	defer cancel()
	command := exec.CommandContext(ctx, ctr,
		append([]string{"--address", n.Outside(plan.NodeSocket), "--namespace", kubeletNamespace}, arguments...)...)
	command.Stdin = input
	var output, complaints bytes.Buffer
	command.Stdout, command.Stderr = &output, &complaints
	if err := command.Run(); err != nil {
		return "", fmt.Errorf("ctr %s: %w: %s", strings.Join(arguments, " "), err, strings.TrimSpace(complaints.String()))
	}
	return output.String(), nil
}

// pauseImage is the reference and the archive of the image of the pods' sandboxes.
func pauseImage() (reference string, archive []byte, err error) {
	path, err := doctor.Pause()
	if err != nil {
		return "", nil, err
	}
	executable, err := os.ReadFile(path)
	if err != nil {
		return "", nil, fmt.Errorf("read the pause program: %w", err)
	}
	var packed bytes.Buffer
	if err := pauseimage.Write(&packed, executable); err != nil {
		return "", nil, err
	}
	return pauseimage.Reference(executable), packed.Bytes(), nil
}

// importPause gives the node's containerd the pause image if it has it not.
func importPause(ctx context.Context, n plan.Node, reference string, archive []byte) error {
	found, err := runCtr(ctx, n, nil, "images", "list", "--quiet", "name=="+reference)
	if err != nil || strings.TrimSpace(found) != "" {
		return err
	}
	_, err = runCtr(ctx, n, bytes.NewReader(archive), "images", "import", "-")
	return err
}

// Load imports image archives (docker save, buildah push docker-archive: or oci-archive:) on every node. Importing
// one that is there already is quick.
func Load(ctx context.Context, options Options, archives []string, output io.Writer) error {
	cluster, _, err := find(options)
	if err != nil {
		return err
	}
	alive, err := running(cluster)
	if err != nil {
		return err
	}
	for _, n := range cluster.AllNodes() {
		if !alive[n.Name()] {
			return fmt.Errorf("node %s does not run: start the cluster with fanfold-cluster up", n.Name())
		}
		for _, archive := range archives {
			if err := loadOne(ctx, n, archive, output); err != nil {
				return err
			}
		}
	}
	return nil
}

func loadOne(ctx context.Context, n plan.Node, archive string, output io.Writer) error {
	started := time.Now()
	if info, err := os.Stat(archive); err != nil {
		return fmt.Errorf("load: %w", err)
	} else if !info.Mode().IsRegular() {
		return fmt.Errorf("load %s: %w", archive, errors.New("not a file"))
	}
	printed, err := runCtr(ctx, n, nil, "images", "import", archive)
	if err != nil {
		return fmt.Errorf("load %s: %w", archive, err)
	}
	for line := range strings.Lines(printed) {
		if name, ok := strings.CutPrefix(line, "unpacking "); ok {
			name, _, _ = strings.Cut(name, " ")
			fmt.Fprintf(output, "%s: %s in %.1f s\n", n.Name(), name, time.Since(started).Seconds())
		}
	}
	return nil
}
