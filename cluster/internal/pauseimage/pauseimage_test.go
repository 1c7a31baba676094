package pauseimage

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"testing"
)

func unpack(t *testing.T, archive []byte) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	reader := tar.NewReader(bytes.NewReader(archive))
	for {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		if files[header.Name], err = io.ReadAll(reader); err != nil {
			t.Fatal(err)
		}
	}
}

func archive(t *testing.T, executable string) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := Write(&out, []byte(executable)); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

type manifestFile struct {
	Manifests []descriptor
	Layers    []descriptor
}

func follow(t *testing.T, files map[string][]byte, to descriptor) []byte {
	t.Helper()
	data, ok := files["blobs/sha256/"+to.Digest[len("sha256:"):]]
	if !ok || len(data) != to.Size {
		t.Fatalf("%+v leads to %d bytes", to, len(data))
	}
	return data
}

func TestTheIndexLeadsToTheProgram(t *testing.T) {
	files := unpack(t, archive(t, "machine code"))
	var index, manifest manifestFile
	if err := json.Unmarshal(files["index.json"], &index); err != nil {
		t.Fatal(err)
	}
	if got, want := index.Manifests[0].Annotations["io.containerd.image.name"], Reference([]byte("machine code")); got != want {
		t.Errorf("the image is named %q, want %q", got, want)
	}
	if err := json.Unmarshal(follow(t, files, index.Manifests[0]), &manifest); err != nil {
		t.Fatal(err)
	}
	layer := unpack(t, follow(t, files, manifest.Layers[0]))
	if string(layer["pause"]) != "machine code" {
		t.Errorf("the layer holds %q", layer)
	}
}

func TestTheSameProgramGivesTheSameArchiveAndAnotherAnotherName(t *testing.T) {
	if !bytes.Equal(archive(t, "a"), archive(t, "a")) {
		t.Error("two archives of one program differ")
	}
	if Reference([]byte("a")) == Reference([]byte("b")) {
		t.Error("two programs share a name")
	}
}
