package provisioner

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v13/controller"
)

func folders(t *testing.T) (Folders, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "volumes")
	return Folders{Path: "/var/volumes", Nodes: map[string]string{"node-1": dir}}, dir
}

func options(node string, modes ...corev1.PersistentVolumeAccessMode) controller.ProvisionOptions {
	reclaim := corev1.PersistentVolumeReclaimDelete
	return controller.ProvisionOptions{
		StorageClass: &storagev1.StorageClass{ReclaimPolicy: &reclaim},
		PVName:       "pvc-1", SelectedNodeName: node,
		PVC: &corev1.PersistentVolumeClaim{Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: modes,
			Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
		}},
	}
}

func TestAVolumeIsAFolderOnTheChosenNodeThatAnyUserMayWrite(t *testing.T) {
	f, dir := folders(t)
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	volume, state, err := f.Provision(t.Context(), options("node-1", corev1.ReadWriteOnce))
	if err != nil || state != controller.ProvisioningFinished {
		t.Fatal(state, err)
	}
	info, err := os.Stat(filepath.Join(dir, "pvc-1"))
	if err != nil || info.Mode().Perm() != 0o777 {
		t.Fatalf("the folder is %v (%v)", info, err)
	}
	if volume.Spec.Local.Path != "/var/volumes/pvc-1" || nodeOf(volume) != "node-1" {
		t.Errorf("the volume is %s on %s", volume.Spec.Local.Path, nodeOf(volume))
	}
	if got := volume.Spec.Capacity[corev1.ResourceStorage]; got.String() != "1Gi" {
		t.Errorf("the capacity is %s", got.String())
	}
}

func TestProvisioningAgainKeepsWhatIsThere(t *testing.T) {
	f, dir := folders(t)
	for range 2 {
		if _, _, err := f.Provision(t.Context(), options("node-1", corev1.ReadWriteOnce)); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "pvc-1", "data"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestWhatALocalFolderCannotBeIsRefused(t *testing.T) {
	f, _ := folders(t)
	block := options("node-1", corev1.ReadWriteOnce)
	mode := corev1.PersistentVolumeBlock
	block.PVC.Spec.VolumeMode = &mode
	for what, refused := range map[string]controller.ProvisionOptions{
		"ReadWriteMany": options("node-1", corev1.ReadWriteMany),
		"Filesystem":    block,
		`"node-9"`:      options("node-9", corev1.ReadWriteOnce),
	} {
		if _, _, err := f.Provision(t.Context(), refused); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("got %v, want a word about %s", err, what)
		}
	}
}

func TestDeletingRemovesTheFolderAndDeletingAgainIsNoError(t *testing.T) {
	f, dir := folders(t)
	volume, _, err := f.Provision(t.Context(), options("node-1", corev1.ReadWriteOnce))
	if err != nil {
		t.Fatal(err)
	}
	volume.Name = "pvc-1"
	for range 2 {
		if err := f.Delete(t.Context(), volume); err != nil {
			t.Fatal(err)
		}
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("left are %v", left)
	}
}

func TestNoNameLeadsOutOfTheFolderOfVolumes(t *testing.T) {
	f, dir := folders(t)
	volume, _, err := f.Provision(t.Context(), options("node-1", corev1.ReadWriteOnce))
	if err != nil {
		t.Fatal(err)
	}
	precious := filepath.Join(filepath.Dir(dir), "precious")
	if err := os.WriteFile(precious, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	volume.Name = "../precious"
	if err := f.Delete(t.Context(), volume); err == nil {
		t.Error("the name is accepted")
	}
	if _, err := os.Stat(precious); err != nil {
		t.Error(err)
	}
}

func TestNodeFlagsOfTheWrongShapeAreRefused(t *testing.T) {
	for _, bad := range []string{"", "name", "=dir", "name="} {
		if _, err := parseNodes([]string{bad}); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
	nodes, err := parseNodes([]string{"a=/x", "b=/y=z"})
	if err != nil || nodes["a"] != "/x" || nodes["b"] != "/y=z" {
		t.Errorf("got %v (%v)", nodes, err)
	}
}
