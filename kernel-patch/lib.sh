# shellcheck shell=bash
# kernel-patch/lib.sh - what the scripts here share. Source it with the series (6.12 or
# 7.x) as $1; sets patches, the series' folder.
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck disable=SC2034
cache=${UBLKZC_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/ublkzc}

say() { echo "kernel-patch: $*" >&2; }
die() {
    say "$*"
    exit 1
}

case ${1-} in
6.12 | 7.x) patches=$here/linux-$1 ;;
*)
    say "unknown series '${1-}': 6.12 or 7.x"
    exit 2
    ;;
esac
# "linux-source-6.12 6.12.117-1": what the series was written against
read -r source_package _ < <(grep -v '^#' "$patches/base")
# shellcheck disable=SC2034
kernel_version=${source_package#linux-source-} # of the kernels that the driver is for

# the kernel's drivers/block/ublk_drv.c, as Kbuild in common/ calls it
driver_source=ublk_main.c

# put_module TREE DIR: the module's source in DIR, from a patched TREE and common/. The
# patches before the one that hooks common/ in are fixes of the kernel's own driver.
put_module() {
    rm -f "$2"/*.[ch]
    if ! grep -q '"ublk_shmem.h"' "$1/drivers/block/ublk_drv.c"; then
        put_stock_module "$1" "$2"
        return
    fi
    cp "$1/drivers/block/ublk_drv.c" "$2/$driver_source"
    cp "$1/include/uapi/linux/ublk_cmd.h" "$here"/common/* "$2/"
}
# put_stock_module TREE DIR: the same of the kernel's own driver
put_stock_module() {
    cp "$1/drivers/block/ublk_drv.c" "$1/include/uapi/linux/ublk_cmd.h" "$2/"
    # shellcheck disable=SC2016
    printf 'obj-m := ublk_drv.o\nccflags-y := -include $(src)/ublk_cmd.h\n' >"$2/Kbuild"
}

# module_make HEADERS DIR ARGUMENT...: the kernel's own build system builds the module in DIR
#
# A kernel of a newer suite than this machine's is configured for a newer compiler and
# pahole; what these are missed for is no part of how the module works with the kernel.
module_make() {
    local headers=$1 dir=$2 settings=()
    shift 2
    has() { grep -qs "^$1" "$headers/.config"; }
    local compiler
    compiler=$(sed -n 's/^CC = .*(CROSS_COMPILE)\([^ ]*\)$/\1/p' "$headers/.kernelvariables" 2>/dev/null)
    if [ -n "$compiler" ] && ! command -v "x86_64-linux-gnu-$compiler" >/dev/null; then
        settings+=(CC=gcc)
        ! has CONFIG_CC_HAS_MIN_FUNCTION_ALIGNMENT=y ||
            gcc -fmin-function-alignment=16 -E -x c /dev/null >/dev/null 2>&1 ||
            settings+=(CONFIG_CC_HAS_MIN_FUNCTION_ALIGNMENT=)
    fi
    ! has CONFIG_DEBUG_INFO_BTF_MODULES=y || settings+=(CONFIG_DEBUG_INFO_BTF_MODULES=)
    make -C "$headers" M="$dir" "${settings[@]}" "$@" modules
}
