// Package provisioner makes persistent volumes of folders on the nodes, as its many namesakes do elsewhere, so that
// claims are bound without a storage system.
package provisioner

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v13/controller"
)

// Name is the provisioner's, for StorageClasses.
const Name = "fanfold.dev/local-path"

// Folders makes and removes volumes. It runs on the machine that holds the folders of all nodes.
type Folders struct {
	Path  string            // of the folder with the volumes, as a node sees it
	Nodes map[string]string // the same folder as this process sees it, by node name
}

// volumeMode lets any user write, since pods run as users of their own choice. A pod's fsGroup is honoured on top:
// these are local volumes, whose owner the kubelet changes, and no hostPath volumes, whose owner it doesn't.
const volumeMode = 0o777

// Provision makes the folder on the node that the scheduler chose for the claim's first pod.
func (f Folders) Provision(_ context.Context, options controller.ProvisionOptions) (*corev1.PersistentVolume, controller.ProvisioningState, error) {
	claim := options.PVC
	if selector := claim.Spec.Selector; selector != nil {
		return nil, controller.ProvisioningFinished, errors.New("claims with a selector cannot be provisioned")
	}
	if mode := claim.Spec.VolumeMode; mode != nil && *mode == corev1.PersistentVolumeBlock {
		return nil, controller.ProvisioningFinished, errors.New("block volumes are not supported: use volumeMode Filesystem")
	}
	for _, mode := range claim.Spec.AccessModes {
		if mode == corev1.ReadWriteMany || mode == corev1.ReadOnlyMany {
			return nil, controller.ProvisioningFinished, fmt.Errorf("access mode %s is not supported: a volume is on one node", mode)
		}
	}
	root, err := f.open(options.SelectedNodeName)
	if err != nil {
		return nil, controller.ProvisioningFinished, err
	}
	defer root.Close()
	if err := root.Mkdir(options.PVName, 0o777); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, controller.ProvisioningFinished, fmt.Errorf("make the volume's folder: %w", err)
	}
	if err := root.Chmod(options.PVName, volumeMode); err != nil { // again, without the process's umask
		return nil, controller.ProvisioningFinished, fmt.Errorf("open the volume's folder to its pods: %w", err)
	}
	return f.volume(options), controller.ProvisioningFinished, nil
}

func (f Folders) volume(options controller.ProvisionOptions) *corev1.PersistentVolume {
	claim := options.PVC.Spec
	return &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: options.PVName},
		Spec: corev1.PersistentVolumeSpec{
			PersistentVolumeReclaimPolicy: *options.StorageClass.ReclaimPolicy,
			AccessModes:                   claim.AccessModes,
			MountOptions:                  options.StorageClass.MountOptions,
			VolumeMode:                    claim.VolumeMode,
			Capacity:                      corev1.ResourceList{corev1.ResourceStorage: claim.Resources.Requests[corev1.ResourceStorage]},
			PersistentVolumeSource: corev1.PersistentVolumeSource{
				Local: &corev1.LocalVolumeSource{Path: filepath.Join(f.Path, options.PVName)},
			},
			NodeAffinity: onNode(options.SelectedNodeName),
		},
	}
}

func onNode(name string) *corev1.VolumeNodeAffinity {
	return &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
		MatchExpressions: []corev1.NodeSelectorRequirement{{
			Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{name},
		}},
	}}}}
}

// Delete removes the folder with all it holds.
func (f Folders) Delete(_ context.Context, volume *corev1.PersistentVolume) error {
	root, err := f.open(nodeOf(volume))
	if err != nil {
		return err
	}
	defer root.Close()
	if err := root.RemoveAll(volume.Name); err != nil {
		return fmt.Errorf("remove the volume's folder: %w", err)
	}
	return nil
}

// nodeOf reads back what onNode wrote; empty when another one wrote it.
func nodeOf(volume *corev1.PersistentVolume) string {
	affinity := volume.Spec.NodeAffinity
	if affinity == nil || affinity.Required == nil || len(affinity.Required.NodeSelectorTerms) != 1 {
		return ""
	}
	expressions := affinity.Required.NodeSelectorTerms[0].MatchExpressions
	if len(expressions) != 1 || len(expressions[0].Values) != 1 {
		return ""
	}
	return expressions[0].Values[0]
}

// open gives access to a node's volumes and to nothing outside them, whatever a volume's name or content says.
func (f Folders) open(node string) (*os.Root, error) {
	dir, ok := f.Nodes[node]
	if !ok {
		return nil, fmt.Errorf("no folder for volumes on node %q", node)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make the folder of volumes: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open the folder of volumes: %w", err)
	}
	return root, nil
}
