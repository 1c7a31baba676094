package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"fanfold.dev/cluster/internal/wait"
)

// hierarchy is one mounted cgroup tree: cgroup v1 has one per controller, v2 a single one, many systems both.
type hierarchy struct {
	path        string
	unified     bool     // version 2
	controllers []string // version 1: the mount's options, controllers among them
}

// parseHierarchies finds the cgroup mounts in the text of /proc/self/mountinfo (format: proc_pid_mountinfo(5)).
func parseHierarchies(mountinfo string) []hierarchy {
	var found []hierarchy
	for line := range strings.Lines(mountinfo) {
		mount, source, ok := strings.Cut(line, " - ")
		mountFields, sourceFields := strings.Fields(mount), strings.Fields(source)
		if !ok || len(mountFields) < 5 || len(sourceFields) < 3 {
			continue
		}
		switch sourceFields[0] {
		case "cgroup":
			found = append(found, hierarchy{path: mountFields[4], controllers: strings.Split(sourceFields[2], ",")})
		case "cgroup2":
			found = append(found, hierarchy{path: mountFields[4], unified: true})
		}
	}
	return found
}

func hierarchies() ([]hierarchy, error) {
	mountinfo, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("find the cgroup mounts: %w", err)
	}
	return parseHierarchies(string(mountinfo)), nil
}

// EnsureCgroup makes the cgroup in every hierarchy, with the controllers that the kubelet demands of its root.
func EnsureCgroup(name string) error {
	all, err := hierarchies()
	if err != nil {
		return err
	}
	for _, h := range all {
		if err := h.prepare(name); err != nil {
			return fmt.Errorf("make cgroup %s: %w", filepath.Join(h.path, name), err)
		}
	}
	return nil
}

func (h hierarchy) prepare(name string) error {
	if h.unified {
		if err := enableControllers(h.path); err != nil {
			return err
		}
	}
	group := filepath.Join(h.path, name)
	if err := os.Mkdir(group, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if !slices.Contains(h.controllers, "cpuset") {
		return nil
	}
	// A new cpuset of version 1 is empty, and no process can enter an empty one.
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		value, err := os.ReadFile(filepath.Join(h.path, file))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(group, file), value, 0); err != nil {
			return err
		}
	}
	return nil
}

// enableControllers lets version 2 cgroups below use what the tree has.
func enableControllers(path string) error {
	available, err := os.ReadFile(filepath.Join(path, "cgroup.controllers"))
	if err != nil {
		return err
	}
	for _, controller := range strings.Fields(string(available)) {
		if err := os.WriteFile(filepath.Join(path, "cgroup.subtree_control"), []byte("+"+controller), 0); err != nil {
			return fmt.Errorf("enable controller %s: %w", controller, err)
		}
	}
	return nil
}

// emptyLimit bounds the wait for killed processes to leave their cgroups.
const emptyLimit = 10 * time.Second

// RemoveCgroup removes the cgroup and all below it from every hierarchy. Its processes must have been killed.
func RemoveCgroup(ctx context.Context, name string) error {
	all, err := hierarchies()
	if err != nil {
		return err
	}
	for _, h := range all {
		group := filepath.Join(h.path, name)
		goal := wait.Goal{What: "cgroup " + group + " to go", Limit: emptyLimit}
		if err := wait.Until(ctx, goal, func(context.Context) error { return removeTree(group) }); err != nil {
			return err
		}
	}
	return nil
}

// removeTree removes the folders deepest first: the files in a cgroup's folder are the kernel's and go with it.
func removeTree(root string) error {
	var groups []string
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() {
			groups = append(groups, path)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	if err != nil {
		return err
	}
	slices.Reverse(groups)
	for _, group := range groups {
		if err := os.Remove(group); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
