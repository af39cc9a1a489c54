{{/* Values that several templates need. */}}

{{- define "umbra.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag }}
{{- end -}}
{{- end -}}

{{/* The Secret with the certificates for etcd; nothing where there is none. */}}
{{- define "umbra.etcdSecret" -}}
{{- if not .Values.etcd.trial }}{{ .Values.etcd.secretName }}{{ end -}}
{{- end -}}

{{/* Flags as variables. What `configuration` says counts more. */}}
{{- define "umbra.configuration" -}}
{{- $data := dict "UMBRA_ETCD_SERVERS" .Values.etcd.servers "UMBRA_SHUTDOWN_DELAY_DURATION" .Values.shutdownDelay -}}
{{- if .Values.etcd.trial -}}
{{- $_ := set $data "UMBRA_ETCD_SERVERS" "http://umbra-etcd:2379" -}}
{{- end -}}
{{- if include "umbra.etcdSecret" . -}}
{{- $_ := set $data "UMBRA_ETCD_CAFILE" "/etc/umbra/etcd/ca.crt" -}}
{{- $_ := set $data "UMBRA_ETCD_CERTFILE" "/etc/umbra/etcd/tls.crt" -}}
{{- $_ := set $data "UMBRA_ETCD_KEYFILE" "/etc/umbra/etcd/tls.key" -}}
{{- end -}}
{{- if .Values.etcd.prefix -}}
{{- $_ := set $data "UMBRA_ETCD_PREFIX" .Values.etcd.prefix -}}
{{- end -}}
{{- if .Values.tls.secretName -}}
{{- $_ := set $data "UMBRA_TLS_CERT_FILE" "/etc/umbra/serving/tls.crt" -}}
{{- $_ := set $data "UMBRA_TLS_PRIVATE_KEY_FILE" "/etc/umbra/serving/tls.key" -}}
{{- end -}}
{{- toYaml (mergeOverwrite $data .Values.configuration) -}}
{{- end -}}
