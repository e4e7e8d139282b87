package main

import (
	"context"
	"log"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// What a cluster has besides Kubernetes' own programs: names of services (dns.go), volumes for
// whoever claims one (volumes.go), and a network that heeds its policies (policies.go).
func newAddonsCommand() *cobra.Command {
	var kubeconfig, listen, node, folder, class string
	command := &cobra.Command{
		Use: "addons",
		RunE: func(*cobra.Command, []string) error {
			ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
			defer stop()
			config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
			if err != nil {
				return err
			}
			config.QPS, config.Burst = 200, 400
			client, err := kubernetes.NewForConfig(config)
			if err != nil {
				return err
			}
			factory := informers.NewSharedInformerFactory(client, 10*time.Minute)
			names := newNames(factory)
			volumes := newVolumes(factory, client, folder, node, class)
			if err := volumes.offer(ctx); err != nil {
				return err
			}
			host, _, err := net.SplitHostPort(listen)
			if err != nil {
				return err
			}
			policies := newPolicies(factory, host)
			factory.Start(ctx.Done())
			factory.WaitForCacheSync(ctx.Done())
			go policies.run(ctx)
			log.Printf("serving names on %s", listen)
			return names.serve(ctx, listen)
		},
	}
	command.Flags().StringVar(&kubeconfig, "kubeconfig", "", "credentials for the API server")
	command.Flags().StringVar(&listen, "listen", "", "address and port for DNS")
	command.Flags().StringVar(&folder, "volumes", "", "folder that holds a folder per volume")
	command.Flags().StringVar(&node, "node", "", "the node that has the folder")
	command.Flags().StringVar(&class, "storage-class", "", "name of the storage class")
	log.SetOutput(os.Stderr)
	return command
}
