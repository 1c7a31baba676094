// Package kubeconfig writes the files with which clients find and enter an API server.
package kubeconfig

import (
	"fmt"
	"os"

	"fanfold.dev/cluster/internal/pki"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
)

// Entry says whom to let in, and where.
type Entry struct {
	Cluster  string // name of cluster and context
	Server   string // URL
	Identity string // name of the certificate in the store
}

// Write replaces the kubeconfig at path (mode 0600). It holds the keys themselves, so it works from anywhere.
func Write(path string, entry Entry, store pki.Store) error {
	config := api.NewConfig()
	cluster, user, context := api.NewCluster(), api.NewAuthInfo(), api.NewContext()
	cluster.Server = entry.Server
	context.Cluster, context.AuthInfo = entry.Cluster, entry.Identity
	for target, file := range map[*[]byte]string{
		&cluster.CertificateAuthorityData: store.Certificate(pki.ClusterCA),
		&user.ClientCertificateData:       store.Certificate(entry.Identity),
		&user.ClientKeyData:               store.Key(entry.Identity),
	} {
		data, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("write kubeconfig %s: %w", path, err)
		}
		*target = data
	}
	config.Clusters[entry.Cluster] = cluster
	config.AuthInfos[entry.Identity] = user
	config.Contexts[entry.Cluster] = context
	config.CurrentContext = entry.Cluster
	if err := clientcmd.WriteToFile(*config, path); err != nil {
		return fmt.Errorf("write kubeconfig %s: %w", path, err)
	}
	return nil
}
