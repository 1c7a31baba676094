// Package pauseimage packs the pause program into an image archive (OCI image layout 1.0), without any image builder.
package pauseimage

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"runtime"
)

const (
	manifestType = "application/vnd.oci.image.manifest.v1+json"
	configType   = "application/vnd.oci.image.config.v1+json"
	layerType    = "application/vnd.oci.image.layer.v1.tar"
	indexType    = "application/vnd.oci.image.index.v1+json"
	// program is the image's only file.
	program = "pause"
	// nobody runs it, since it needs no rights.
	nobody = "65534:65534"
)

type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int               `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// Reference is the image's name: by content, so that a new program is a new image.
func Reference(executable []byte) string {
	sum := sha256.Sum256(executable)
	return "localhost/fanfold-pause:" + hex.EncodeToString(sum[:6])
}

// Write writes the archive of an image that runs the (static) executable. The same executable gives the same bytes.
func Write(w io.Writer, executable []byte) error {
	layer, err := pack([]file{{program, executable, 0o755}})
	if err != nil {
		return err
	}
	config := encode(map[string]any{
		"architecture": runtime.GOARCH,
		"os":           "linux",
		"config":       map[string]any{"Entrypoint": []string{"/" + program}, "User": nobody},
		"rootfs":       map[string]any{"type": "layers", "diff_ids": []string{digest(layer)}},
	})
	manifest := encode(map[string]any{
		"schemaVersion": 2,
		"mediaType":     manifestType,
		"config":        describe(configType, config),
		"layers":        []descriptor{describe(layerType, layer)},
	})
	named := describe(manifestType, manifest)
	named.Annotations = map[string]string{"io.containerd.image.name": Reference(executable)}
	index := encode(map[string]any{"schemaVersion": 2, "mediaType": indexType, "manifests": []descriptor{named}})
	archive, err := pack([]file{
		{"oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644},
		{"index.json", index, 0o644},
		blob(layer), blob(config), blob(manifest),
	})
	if err != nil {
		return err
	}
	_, err = w.Write(archive)
	return err
}

type file struct {
	name string
	data []byte
	mode fs.FileMode
}

func blob(data []byte) file {
	return file{"blobs/sha256/" + hexDigest(data), data, 0o644}
}

// pack makes a tar archive; entries have no times, so that it depends on the files alone.
func pack(files []file) ([]byte, error) {
	var archive bytes.Buffer
	writer := tar.NewWriter(&archive)
	for _, f := range files {
		header := &tar.Header{Name: f.name, Size: int64(len(f.data)), Mode: int64(f.mode), Format: tar.FormatUSTAR}
		if err := writer.WriteHeader(header); err != nil {
			return nil, fmt.Errorf("pack %s: %w", f.name, err)
		}
		if _, err := writer.Write(f.data); err != nil {
			return nil, fmt.Errorf("pack %s: %w", f.name, err)
		}
	}
	if err := writer.Close(); err != nil {
		return nil, fmt.Errorf("pack: %w", err)
	}
	return archive.Bytes(), nil
}

func describe(mediaType string, data []byte) descriptor {
	return descriptor{MediaType: mediaType, Digest: digest(data), Size: len(data)}
}

func hexDigest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

func digest(data []byte) string { return "sha256:" + hexDigest(data) }

// encode writes JSON with sorted keys. The values are strings, numbers, maps and lists: none can fail.
func encode(value any) []byte {
	data, err := json.Marshal(value)
	if err != nil {
		panic(err)
	}
	return data
}
