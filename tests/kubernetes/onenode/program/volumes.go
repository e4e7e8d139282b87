package main

import (
	"context"
	"log"
	"os"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

const (
	provisioner   = "streamspace.test/folders"
	provisionedBy = "pv.kubernetes.io/provisioned-by"
)

// volumes gives every claim of its storage class a folder of the node, and removes the folder
// when the claim is gone.
type volumes struct {
	client              kubernetes.Interface
	folder, node, class string
}

func newVolumes(
	factory informers.SharedInformerFactory, client kubernetes.Interface, folder, node, class string,
) *volumes {
	v := &volumes{client: client, folder: folder, node: node, class: class}
	claims := factory.Core().V1().PersistentVolumeClaims().Informer()
	claims.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(object any) { v.claimSeen(object.(*corev1.PersistentVolumeClaim)) },
		UpdateFunc: func(_, object any) { v.claimSeen(object.(*corev1.PersistentVolumeClaim)) },
	})
	made := factory.Core().V1().PersistentVolumes().Informer()
	made.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(object any) { v.volumeSeen(object.(*corev1.PersistentVolume)) },
		UpdateFunc: func(_, object any) { v.volumeSeen(object.(*corev1.PersistentVolume)) },
	})
	return v
}

// offer makes the storage class, for claims that name none, too.
func (v *volumes) offer(ctx context.Context) error {
	binding := storagev1.VolumeBindingImmediate
	_, err := v.client.StorageV1().StorageClasses().Create(ctx, &storagev1.StorageClass{
		ObjectMeta: metav1.ObjectMeta{
			Name:        v.class,
			Annotations: map[string]string{"storageclass.kubernetes.io/is-default-class": "true"},
		},
		Provisioner:       provisioner,
		VolumeBindingMode: &binding,
	}, metav1.CreateOptions{})
	if errors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

func (v *volumes) claimSeen(claim *corev1.PersistentVolumeClaim) {
	wanted := claim.Spec.StorageClassName != nil && *claim.Spec.StorageClassName == v.class
	if !wanted || claim.Spec.VolumeName != "" || claim.DeletionTimestamp != nil {
		return
	}
	name := "pvc-" + string(claim.UID)
	path := filepath.Join(v.folder, name)
	if err := os.MkdirAll(path, 0o777); err != nil {
		log.Printf("volume %s: %v", name, err)
		return
	}
	// Whatever user a pod runs as.
	os.Chmod(path, 0o777)
	affinity := corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{
		NodeSelectorTerms: []corev1.NodeSelectorTerm{{
			MatchExpressions: []corev1.NodeSelectorRequirement{{
				Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{v.node},
			}},
		}},
	}}
	_, err := v.client.CoreV1().PersistentVolumes().Create(context.Background(), &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{provisionedBy: provisioner}},
		Spec: corev1.PersistentVolumeSpec{
			AccessModes:                   claim.Spec.AccessModes,
			Capacity:                      corev1.ResourceList{corev1.ResourceStorage: claim.Spec.Resources.Requests[corev1.ResourceStorage]},
			PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimDelete,
			StorageClassName:              v.class,
			VolumeMode:                    claim.Spec.VolumeMode,
			NodeAffinity:                  &affinity,
			PersistentVolumeSource:        corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: path}},
			ClaimRef: &corev1.ObjectReference{
				APIVersion: "v1", Kind: "PersistentVolumeClaim",
				Namespace: claim.Namespace, Name: claim.Name, UID: claim.UID,
			},
		},
	}, metav1.CreateOptions{})
	if err != nil && !errors.IsAlreadyExists(err) {
		log.Printf("volume %s: %v", name, err)
	}
}

func (v *volumes) volumeSeen(volume *corev1.PersistentVolume) {
	ours := volume.Annotations[provisionedBy] == provisioner && volume.Spec.Local != nil
	if !ours || volume.Status.Phase != corev1.VolumeReleased || volume.DeletionTimestamp != nil {
		return
	}
	if err := os.RemoveAll(volume.Spec.Local.Path); err != nil {
		log.Printf("volume %s: %v", volume.Name, err)
		return
	}
	err := v.client.CoreV1().PersistentVolumes().Delete(context.Background(), volume.Name, metav1.DeleteOptions{})
	if err != nil && !errors.IsNotFound(err) {
		log.Printf("volume %s: %v", volume.Name, err)
	}
}
