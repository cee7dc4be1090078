package main

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"

	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// startEtcd starts etcd and returns its URL: a unix socket, so there is no port to find, and only this user can open it.
func (c *Cluster) startEtcd(ctx context.Context) (string, error) {
	cfg := embed.NewConfig()
	cfg.Dir = filepath.Join(c.dir, "etcd")
	cfg.UnsafeNoFsync = true // survives a killed process, not a power cut: worth the speed here
	cfg.QuotaBackendBytes = 4 << 30
	log, err := zap.Config{
		Level:            zap.NewAtomicLevelAt(zapcore.ErrorLevel),
		Encoding:         "console",
		EncoderConfig:    zap.NewProductionEncoderConfig(),
		OutputPaths:      []string{"stderr"},
		ErrorOutputPaths: []string{"stderr"},
	}.Build()
	if err != nil {
		return "", err
	}
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(log)
	socket, err := c.socket()
	if err != nil {
		return "", err
	}
	cfg.ListenClientUrls = []url.URL{{Scheme: "unix", Path: socket}}
	// Wanted by the configuration and used by nobody: there is one member, and its one client knows the socket.
	unused := []url.URL{{Scheme: "http", Host: "127.0.0.1:0"}}
	cfg.AdvertiseClientUrls, cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = unused, unused, unused
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	etcd, err := embed.StartEtcd(cfg)
	if err != nil {
		return "", err
	}
	c.stop = append(c.stop, etcd.Close)
	go func() {
		if err := <-etcd.Err(); err != nil {
			c.fail(fmt.Errorf("etcd: %w", err))
		}
	}()
	select {
	case <-etcd.Server.ReadyNotify():
		return "unix://" + socket, nil
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

// socket returns a path that is short enough: the kernel takes 107 bytes.
func (c *Cluster) socket() (string, error) {
	path := filepath.Join(c.dir, "etcd.sock")
	if len(path) > 100 {
		dir, err := os.MkdirTemp("", "devcluster-")
		if err != nil {
			return "", err
		}
		c.stop = append(c.stop, func() { os.RemoveAll(dir) })
		return filepath.Join(dir, "s"), nil
	}
	// Left behind by a killed process; the directory's lock says that nobody listens.
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return "", err
	}
	return path, nil
}
