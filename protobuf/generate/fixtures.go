package main

import (
	"bytes"
	"encoding/json"
	"log"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// pair is one object in both forms.
type pair struct {
	Name     string          `json:"name"`
	Protobuf []byte          `json:"protobuf"`
	JSON     json.RawMessage `json:"json"`
}

func pairs(scheme *runtime.Scheme) []pair {
	serializer := protobuf.NewSerializer(scheme, scheme)
	var pairs []pair
	for _, one := range objects() {
		one.object.GetObjectKind().SetGroupVersionKind(one.kind)
		var encoded bytes.Buffer
		if err := serializer.Encode(one.object, &encoded); err != nil {
			log.Fatal(err)
		}
		// What arrives counts: empty lists and types of parts are not sent.
		arrived, _, err := serializer.Decode(encoded.Bytes(), nil, nil)
		if err != nil {
			log.Fatal(err)
		}
		arrived.GetObjectKind().SetGroupVersionKind(one.kind)
		printed, err := json.Marshal(arrived)
		if err != nil {
			log.Fatal(err)
		}
		pairs = append(pairs, pair{Name: one.name, Protobuf: encoded.Bytes(), JSON: printed})
	}
	return pairs
}

type sample struct {
	name   string
	kind   schema.GroupVersionKind
	object runtime.Object
}

func pointer[T any](value T) *T { return &value }

func objects() []sample {
	core, rbac := corev1.SchemeGroupVersion, rbacv1.SchemeGroupVersion
	meta := func(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Name: name, Namespace: "shop"} }
	return []sample{
		{"namespace", core.WithKind("Namespace"), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}},
		{"config map", core.WithKind("ConfigMap"), &corev1.ConfigMap{
			ObjectMeta: meta("settings"),
			Data:       map[string]string{"colour": "blue", "empty": "", "markup": "<a href=\"x\">\u2028\t&</a>"},
			BinaryData: map[string][]byte{"bytes": {0, 255, 128}, "none": {}},
			Immutable:  pointer(false),
		}},
		{"secret", core.WithKind("Secret"), &corev1.Secret{
			ObjectMeta: meta("login"), Type: corev1.SecretTypeOpaque, Data: map[string][]byte{"password": []byte("hush\x00")},
		}},
		{"service account", core.WithKind("ServiceAccount"), &corev1.ServiceAccount{
			ObjectMeta: meta("robot"), ImagePullSecrets: []corev1.LocalObjectReference{{Name: "registry"}, {}},
		}},
		{"service", core.WithKind("Service"), &corev1.Service{ObjectMeta: meta("web"), Spec: corev1.ServiceSpec{
			Selector: map[string]string{"app": "web"},
			Ports: []corev1.ServicePort{
				{Name: "http", Port: 80, TargetPort: intstr.FromString("web")},
				{Port: 81, TargetPort: intstr.FromInt32(-1), AppProtocol: pointer("")},
			},
		}}},
		{"role", rbac.WithKind("Role"), &rbacv1.Role{ObjectMeta: meta("reader"), Rules: []rbacv1.PolicyRule{
			{Verbs: []string{"get", "list"}, APIGroups: []string{""}, Resources: []string{"pods"}},
		}}},
		{"role without rules", rbac.WithKind("Role"), &rbacv1.Role{ObjectMeta: meta("none")}},
		{"role binding", rbac.WithKind("RoleBinding"), &rbacv1.RoleBinding{
			ObjectMeta: meta("readers"),
			Subjects:   []rbacv1.Subject{{Kind: "User", APIGroup: rbac.Group, Name: "jo"}},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbac.Group, Kind: "Role", Name: "reader"},
		}},
		{"deployment", appsv1.SchemeGroupVersion.WithKind("Deployment"), deployment()},
		{"pod with managed fields", core.WithKind("Pod"), managedPod()},
		{"persistent volume claim", core.WithKind("PersistentVolumeClaim"), &corev1.PersistentVolumeClaim{
			ObjectMeta: meta("data"), Spec: corev1.PersistentVolumeClaimSpec{
				AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
				Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{
					corev1.ResourceStorage: resource.MustParse("10Gi"), "example.com/none": {},
				}},
			},
		}},
		{"eviction", policyv1.SchemeGroupVersion.WithKind("Eviction"), &policyv1.Eviction{
			ObjectMeta: meta("web-0"), DeleteOptions: &metav1.DeleteOptions{GracePeriodSeconds: pointer(int64(0))},
		}},
		{"delete options of a group", appsv1.SchemeGroupVersion.WithKind("DeleteOptions"), &metav1.DeleteOptions{
			PropagationPolicy: pointer(metav1.DeletePropagationForeground),
			Preconditions:     &metav1.Preconditions{ResourceVersion: pointer("7")},
			DryRun:            []string{metav1.DryRunAll},
		}},
		{"token request", authenticationv1.SchemeGroupVersion.WithKind("TokenRequest"), &authenticationv1.TokenRequest{
			Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: pointer(int64(3600))},
		}},
		{"self subject review", authenticationv1.SchemeGroupVersion.WithKind("SelfSubjectReview"),
			&authenticationv1.SelfSubjectReview{Status: authenticationv1.SelfSubjectReviewStatus{
				UserInfo: authenticationv1.UserInfo{
					Username: "jo", Extra: map[string]authenticationv1.ExtraValue{"b": {"1", "2"}, "a": {}},
				},
			}}},
		{"self subject access review", authorizationv1.SchemeGroupVersion.WithKind("SelfSubjectAccessReview"),
			&authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{
				ResourceAttributes: &authorizationv1.ResourceAttributes{Verb: "get", Resource: "pods", Namespace: "shop"},
			}}},
		{"self subject rules review", authorizationv1.SchemeGroupVersion.WithKind("SelfSubjectRulesReview"),
			&authorizationv1.SelfSubjectRulesReview{Spec: authorizationv1.SelfSubjectRulesReviewSpec{Namespace: "shop"}}},
		{"scale", autoscalingv1.SchemeGroupVersion.WithKind("Scale"), &autoscalingv1.Scale{
			ObjectMeta: meta("web"), Spec: autoscalingv1.ScaleSpec{Replicas: 0},
		}},
		{"lease", coordinationv1.SchemeGroupVersion.WithKind("Lease"), &coordinationv1.Lease{
			ObjectMeta: meta("leader"), Spec: coordinationv1.LeaseSpec{
				HolderIdentity: pointer(""),
				AcquireTime:    pointer(metav1.NewMicroTime(time.Date(2025, 2, 28, 23, 59, 59, 1234999, time.UTC))),
				RenewTime:      pointer(metav1.NewMicroTime(time.Date(1969, 12, 31, 23, 59, 59, 0, time.UTC))),
			},
		}},
		{"list", core.WithKind("List"), &corev1.List{Items: []runtime.RawExtension{{Raw: []byte(`{"kind":"X"}`)}, {}}}},
		{"custom resource definition", apiextensionsv1.SchemeGroupVersion.WithKind("CustomResourceDefinition"), definition()},
	}
}

func deployment() *appsv1.Deployment {
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{
			Name: "web", Labels: map[string]string{"b": "2", "a": "1"}, Generation: -1,
			OwnerReferences: []metav1.OwnerReference{{Kind: "Owner", Name: "o", Controller: pointer(true)}},
		},
		Spec: appsv1.DeploymentSpec{
			Replicas: pointer(int32(0)),
			Selector: &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{
				{Key: "app", Operator: metav1.LabelSelectorOpIn, Values: []string{"web", ""}},
			}},
			Strategy: appsv1.DeploymentStrategy{RollingUpdate: &appsv1.RollingUpdateDeployment{
				MaxSurge: pointer(intstr.FromString("25%")), MaxUnavailable: pointer(intstr.FromInt32(1)),
			}},
			Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{
				Containers: []corev1.Container{{
					Name: "web", Image: "nginx", TTY: true,
					Ports: []corev1.ContainerPort{{ContainerPort: 8080, Protocol: corev1.ProtocolTCP}},
					Env: []corev1.EnvVar{{Name: "LEVEL", ValueFrom: &corev1.EnvVarSource{
						ConfigMapKeyRef: &corev1.ConfigMapKeySelector{
							LocalObjectReference: corev1.LocalObjectReference{Name: "settings"}, Key: "level", Optional: pointer(false),
						},
					}}},
					Resources: corev1.ResourceRequirements{Limits: corev1.ResourceList{
						corev1.ResourceCPU: resource.MustParse("250m"), corev1.ResourceMemory: resource.MustParse("0.5Gi"),
					}},
					LivenessProbe: &corev1.Probe{ProbeHandler: corev1.ProbeHandler{
						HTTPGet: &corev1.HTTPGetAction{Path: "/", Port: intstr.FromString("http")},
					}},
				}},
				Volumes: []corev1.Volume{{Name: "scratch", VolumeSource: corev1.VolumeSource{
					EmptyDir: &corev1.EmptyDirVolumeSource{SizeLimit: pointer(resource.MustParse("1G"))},
				}}},
				SecurityContext: &corev1.PodSecurityContext{RunAsUser: pointer(int64(0)), SupplementalGroups: []int64{-7, 0, 1 << 40}},
			}},
		},
	}
}

func managedPod() *corev1.Pod {
	then := metav1.NewTime(time.Date(2024, 2, 29, 1, 2, 3, 456, time.UTC))
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: "web-0", CreationTimestamp: then, DeletionTimestamp: &then, DeletionGracePeriodSeconds: pointer(int64(30)),
			ManagedFields: []metav1.ManagedFieldsEntry{
				{Manager: "kubectl", Time: &then, FieldsV1: &metav1.FieldsV1{Raw: []byte(`{"f:spec":{"k:{\"name\":\"a\"}":{}}}`)}},
				{Manager: "none", FieldsV1: &metav1.FieldsV1{}},
			},
		},
		Status: corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.PodReady, LastTransitionTime: then}, {}}},
	}
}

func definition() *apiextensionsv1.CustomResourceDefinition {
	schema := apiextensionsv1.JSONSchemaProps{
		Type: "object", Maximum: pointer(1.0), Minimum: pointer(-0.25), MultipleOf: pointer(1e25),
		Default: &apiextensionsv1.JSON{Raw: []byte(`{"a":[1,null]}`)},
		Enum:    []apiextensionsv1.JSON{{Raw: []byte(`"x"`)}, {Raw: []byte(`null`)}, {}},
		Properties: map[string]apiextensionsv1.JSONSchemaProps{
			"list": {Type: "array", Items: &apiextensionsv1.JSONSchemaPropsOrArray{Schema: &apiextensionsv1.JSONSchemaProps{Type: "string"}}},
			"pair": {Items: &apiextensionsv1.JSONSchemaPropsOrArray{JSONSchemas: []apiextensionsv1.JSONSchemaProps{{}, {Type: "integer"}}}},
			"none": {Items: &apiextensionsv1.JSONSchemaPropsOrArray{}},
			"open": {AdditionalProperties: &apiextensionsv1.JSONSchemaPropsOrBool{Allows: true}},
			"shut": {AdditionalProperties: &apiextensionsv1.JSONSchemaPropsOrBool{}},
			"typed": {AdditionalProperties: &apiextensionsv1.JSONSchemaPropsOrBool{
				Allows: true, Schema: &apiextensionsv1.JSONSchemaProps{Format: "int32"},
			}},
		},
		Dependencies: apiextensionsv1.JSONSchemaDependencies{
			"a": {Property: []string{"b"}}, "c": {Schema: &apiextensionsv1.JSONSchemaProps{Type: "null"}}, "d": {},
		},
	}
	return &apiextensionsv1.CustomResourceDefinition{
		ObjectMeta: metav1.ObjectMeta{Name: "toys.example.com"},
		Spec: apiextensionsv1.CustomResourceDefinitionSpec{
			Group: "example.com", Scope: apiextensionsv1.NamespaceScoped,
			Names: apiextensionsv1.CustomResourceDefinitionNames{Plural: "toys", Kind: "Toy"},
			Versions: []apiextensionsv1.CustomResourceDefinitionVersion{
				{Name: "v1", Served: true, Schema: &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: &schema}},
			},
		},
	}
}
