#!/usr/bin/env bash
# The images that tests run: a small client (sh, curl, wget, nc, socat, redis-cli), and real servers from Debian (nginx
# on 8080, redis on 6379, an SMTP server on 2525). Each is a few programs with their libraries on an empty root; all run as any user.
set -euo pipefail
source "$(dirname "$0")/lib.sh"

key=$(test_images_key)
if image_is "$CLIENT_IMAGE" "$key" && image_is "$APPS_IMAGE" "$key"; then exit 0; fi
work=$(mktemp -d "$SCRATCH/images.XXXXXX")
root=$work/debian
mkdir "$root"
tar --numeric-owner -C "$root" -xf "$LINKSPAN_CACHE/rootfs-$(rootfs_key).tar"

# small_root OUT PROGRAM...: busybox with all its names, the programs, and the few files that libc wants.
small_root() {
  local out=$1 applet
  shift
  mkdir -p "$out"/{bin,etc,tmp,var/tmp,usr/bin}
  chmod 1777 "$out/tmp" "$out/var/tmp"
  cp "$root/usr/bin/busybox" "$out/bin/"
  for applet in $("$out/bin/busybox" --list); do
    [[ $applet == busybox ]] || ln -s busybox "$out/bin/$applet"
  done
  printf 'root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n' >"$out/etc/passwd"
  printf 'root:x:0:\nnogroup:x:65534:\n' >"$out/etc/group"
  echo 'hosts: files dns' >"$out/etc/nsswitch.conf"
  copy_with_libraries "$root" "$out" "$@"
  # The loader finds libraries by the usual two folders, which are one in Debian.
  for folder in lib lib64; do
    if [[ -d $out/$folder ]]; then
      mkdir -p "$out/usr/$folder"
      cp -a "$out/$folder/." "$out/usr/$folder/"
      rm -r "${out:?}/$folder"
    fi
    [[ -d $out/usr/$folder ]] && ln -s "usr/$folder" "$out/$folder"
  done
}

small_root "$work/client" /usr/bin/curl /usr/bin/socat /usr/bin/redis-cli
import_image "$CLIENT_IMAGE" "$key" "$work/client" 'ENV PATH=/usr/bin:/bin' 'CMD ["sh"]'

small_root "$work/apps" /usr/sbin/nginx /usr/bin/redis-server /usr/bin/redis-cli /usr/bin/msmtpd
mkdir -p "$work"/apps/{etc/nginx,srv/www,var/log/nginx,var/lib/nginx}
chmod 1777 "$work"/apps/var/l*/nginx
cp "$BED/apps/nginx.conf" "$work/apps/etc/nginx/"
cp "$BED/apps/index.html" "$work/apps/srv/www/"
install -m 755 "$BED/apps/serve-smtp" "$work/apps/bin/"
import_image "$APPS_IMAGE" "$key" "$work/apps" 'ENV PATH=/usr/sbin:/usr/bin:/bin' 'WORKDIR /tmp' 'CMD ["nginx"]'
rm -rf "$work"
