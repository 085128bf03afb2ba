/* SPDX-License-Identifier: MIT */
/*
 * rebind.c - see rebind.h.
 *
 * The linker of the running program (ld.so) writes these entries too, when it
 * loads an object, and protects them afterwards (RELRO).  At the start it is done
 * with everything.  Of an object that is loaded later by another thread we do not
 * know; but once its entries are protected ld.so is done with it, so only then
 * are they written, and while dl_iterate_phdr() keeps it from being unloaded.
 * What has no protected entries is written where it is, one pointer at a time: the
 * worst is that ld.so writes its own value over it.
 */
#include "rebind.h"

#include <elf.h>
#include <errno.h>
#include <link.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "shim.h"
#include "sys.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14 */
#endif

#if defined(__x86_64__)
#define IS_REFERENCE(type)                                                                         \
	((type) == R_X86_64_JUMP_SLOT || (type) == R_X86_64_GLOB_DAT || (type) == R_X86_64_64)
#elif defined(__aarch64__)
#define IS_REFERENCE(type)                                                                         \
	((type) == R_AARCH64_JUMP_SLOT || (type) == R_AARCH64_GLOB_DAT || (type) == R_AARCH64_ABS64)
#else
#define IS_REFERENCE(type) false /* of no processor that we know */
#endif

#define PAGE 4096UL

static const struct rebind *wanted;
static atomic_ullong seen; /* objects ever loaded, as of the last look */
/* Of this thread: what it opens is of interest to itself. */
static _Thread_local bool expected __attribute__((tls_model("initial-exec")));
static pid_t process;	   /* a child may have inherited ld.so's lock taken */

/* An object, as far as we need it. */
struct object {
	uintptr_t base;
	const char *strings;
	const ElfW(Sym) * symbols;
	const ElfW(Rela) * plt, *data;
	size_t plt_size, data_size; /* bytes */
	uintptr_t relro, relro_end; /* whole pages */
	uintptr_t end;		    /* of what is mapped, from base on */
	bool starting;		    /* ld.so is done with it */
};

/* Addresses in the dynamic section are relocated by ld.so, but not of the vdso. */
/* cppcheck-suppress unknownMacro */
static const void *address(const struct object *o, ElfW(Addr) value)
{
	return (const void *)(value < o->base ? o->base + value : value);
}

static bool read_dynamic(struct object *o, const ElfW(Dyn) * d)
{
	for (; d && d->d_tag != DT_NULL; d++) {
		switch (d->d_tag) {
		case DT_STRTAB:
			o->strings = address(o, d->d_un.d_ptr);
			break;
		case DT_SYMTAB:
			o->symbols = address(o, d->d_un.d_ptr);
			break;
		case DT_JMPREL:
			o->plt = address(o, d->d_un.d_ptr);
			break;
		case DT_PLTRELSZ:
			o->plt_size = d->d_un.d_val;
			break;
		case DT_RELA:
			o->data = address(o, d->d_un.d_ptr);
			break;
		case DT_RELASZ:
			o->data_size = d->d_un.d_val;
			break;
		default:
			break;
		}
	}
	return o->strings && o->symbols;
}

/* Says so without changing anything that is not about to be. */
static bool writable(uintptr_t page)
{
	return sys_madvise((void *)page, PAGE, MADV_POPULATE_WRITE) == 0;
}

/* False also where the kernel does not know how to say. */
static bool protected(uintptr_t page)
{
	return writable((uintptr_t)&seen & ~(PAGE - 1)) && !writable(page);
}

/* False: ld.so may be at work there. */
static bool write_entry(const struct object *o, void *_Atomic *entry, void *to)
{
	uintptr_t page = (uintptr_t)entry & ~(PAGE - 1);
	bool guarded = page >= o->relro && page < o->relro_end;

	if (!guarded) {
		atomic_store_explicit(entry, to, memory_order_release);
		return true;
	}
	if (!o->starting && !protected(page))
		return false;
	if (sys_call(SYS_mprotect, (long)page, PAGE, PROT_READ | PROT_WRITE, 0, 0, 0) < 0)
		return true; /* it may not: then it stays libc's */
	atomic_store_explicit(entry, to, memory_order_release);
	sys_call(SYS_mprotect, (long)page, PAGE, PROT_READ, 0, 0, 0);
	return true;
}

/* Entries that are bound lazily hold an address of the object itself until then. */
static bool refers(const struct object *o, const ElfW(Rela) * r, const struct rebind *b, void *now)
{
	const ElfW(Sym) *symbol = &o->symbols[ELF64_R_SYM(r->r_info)];
	bool unbound = (uintptr_t)now >= o->base && (uintptr_t)now < o->end;

	return symbol->st_shndx == SHN_UNDEF && !r->r_addend &&
	       strcmp(o->strings + symbol->st_name, b->symbol) == 0 &&
	       (now == b->from || (o->starting && unbound));
}

static bool rebind_table(const struct object *o, const ElfW(Rela) * r, size_t size)
{
	for (size_t i = 0; i < size / sizeof(*r); i++, r++) {
		void *_Atomic *entry = (void *_Atomic *)(o->base + r->r_offset);

		if (!IS_REFERENCE(ELF64_R_TYPE(r->r_info)) || !ELF64_R_SYM(r->r_info))
			continue;
		for (const struct rebind *b = wanted; b->symbol; b++)
			if (refers(o, r, b, atomic_load_explicit(entry, memory_order_relaxed)) &&
			    !write_entry(o, entry, b->to))
				return false;
	}
	return true;
}

/* libc's and ld.so's own calls stay theirs, and ours go to next. */
static bool is_exempt(const struct dl_phdr_info *info)
{
	const char *slash = strrchr(info->dlpi_name, '/');
	const char *name = slash ? slash + 1 : info->dlpi_name;

	for (int i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *ph = &info->dlpi_phdr[i];
		uintptr_t start = info->dlpi_addr + ph->p_vaddr;

		if (ph->p_type == PT_LOAD && (uintptr_t)&wanted - start < ph->p_memsz)
			return true;
	}
	return strncmp(name, "libc.so", 7) == 0 || strncmp(name, "ld-", 3) == 0 ||
	       strncmp(name, "ld.so", 5) == 0 || strncmp(name, "linux-vdso", 10) == 0;
}

struct look {
	bool starting;
	bool again; /* an object was not finished yet */
};

static int look_at(struct dl_phdr_info *info, size_t size, void *arg)
{
	struct look *look = arg;
	struct object o = { .base = info->dlpi_addr, .starting = look->starting };
	const ElfW(Dyn) *dynamic = NULL;

	(void)size;
	if (is_exempt(info))
		return 0;
	for (int i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *ph = &info->dlpi_phdr[i];
		uintptr_t start = o.base + ph->p_vaddr;

		if (ph->p_type == PT_LOAD && start + ph->p_memsz > o.end)
			o.end = start + ph->p_memsz;
		if (ph->p_type == PT_DYNAMIC)
			dynamic = (const ElfW(Dyn) *)start;
		if (ph->p_type == PT_GNU_RELRO) {
			o.relro = start & ~(PAGE - 1);
			o.relro_end = (start + ph->p_memsz) & ~(PAGE - 1);
		}
	}
	if (read_dynamic(&o, dynamic) && !(rebind_table(&o, o.plt, o.plt ? o.plt_size : 0) &&
					   rebind_table(&o, o.data, o.data ? o.data_size : 0)))
		look->again = true;
	return 0;
}

static int count_loaded(struct dl_phdr_info *info, size_t size, void *arg)
{
	(void)size;
	*(unsigned long long *)arg = info->dlpi_adds;
	return 1; /* the first knows */
}

static unsigned long long nr_loaded(void)
{
	unsigned long long nr = 0;

	dl_iterate_phdr(count_loaded, &nr);
	return nr;
}

void rebind_start(const struct rebind *list)
{
	struct look look = { .starting = true };

	wanted = list;
	process = sys_getpid();
	seen = nr_loaded();
	dl_iterate_phdr(look_at, &look);
}

void rebind_expect(void)
{
	expected = true;
}

void rebind_new(void)
{
	struct look look = { 0 };
	unsigned long long nr;

	if (!expected || !wanted || shim.sandboxed || process != sys_getpid())
		return;
	nr = nr_loaded();
	if (nr != atomic_load_explicit(&seen, memory_order_relaxed))
		dl_iterate_phdr(look_at, &look);
	if (!look.again)
		atomic_store_explicit(&seen, nr, memory_order_relaxed);
	expected = look.again;
}
