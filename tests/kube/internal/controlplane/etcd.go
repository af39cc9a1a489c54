package controlplane

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
)

// etcdQuota is etcd's own suggested maximum: large lists are what the tests are about.
const etcdQuota = 8 << 30

// StartEtcd runs etcd until the returned function is called. The data is not fsynced: it survives the end of the
// process, not that of the machine.
func StartEtcd(config *Config) (stop func(), err error) {
	data, log := filepath.Join(config.Dir, "etcd"), filepath.Join(config.Dir, "log", "etcd.log")
	peerPort, err := FreePort(config.Address)
	if err != nil {
		return nil, err
	}
	peer := fmt.Sprintf("http://%s:%d", config.Address, peerPort)
	if config.Assets != "" {
		return startBinary(context.Background(), filepath.Join(config.Assets, "etcd"), log,
			"--data-dir="+data, "--unsafe-no-fsync",
			"--listen-client-urls="+config.EtcdURL, "--advertise-client-urls="+config.EtcdURL,
			"--listen-peer-urls="+peer, "--initial-advertise-peer-urls="+peer, "--initial-cluster=default="+peer,
			fmt.Sprintf("--quota-backend-bytes=%d", int64(etcdQuota)))
	}
	return startEmbeddedEtcd(config, data, log, peer)
}

func startEmbeddedEtcd(config *Config, data, log, peer string) (func(), error) {
	clientURL, err := url.Parse(config.EtcdURL)
	if err != nil {
		return nil, err
	}
	peerURL, err := url.Parse(peer)
	if err != nil {
		return nil, err
	}
	etcd := embed.NewConfig()
	etcd.Dir = data
	etcd.ListenClientUrls, etcd.AdvertiseClientUrls = []url.URL{*clientURL}, []url.URL{*clientURL}
	etcd.ListenPeerUrls, etcd.AdvertisePeerUrls = []url.URL{*peerURL}, []url.URL{*peerURL}
	etcd.InitialCluster = etcd.InitialClusterFromName(etcd.Name)
	etcd.UnsafeNoFsync = true
	etcd.QuotaBackendBytes = etcdQuota
	// Watches without progress must not cost a minute of waiting: the same interval that kube-apiserver's tests use.
	etcd.WatchProgressNotifyInterval = 5 * time.Second
	etcd.Logger, etcd.LogLevel, etcd.LogOutputs = "zap", "warn", []string{log}

	server, err := embed.StartEtcd(etcd)
	if err != nil {
		return nil, fmt.Errorf("start etcd: %w", err)
	}
	select {
	case <-server.Server.ReadyNotify():
		return server.Close, nil
	case err := <-server.Err():
		server.Close()
		return nil, fmt.Errorf("start etcd: %w", err)
	case <-time.After(30 * time.Second):
		server.Close()
		return nil, errors.New("start etcd: not ready after 30 s")
	}
}
