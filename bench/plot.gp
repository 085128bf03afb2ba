# bench/plot.gp - median ratio per point with the range of the repetitions.
set terminal pngcairo size 1000,480
set output out
set ylabel "throughput, shim / copy"
set style data histograms
set style fill solid 0.6
set style histogram errorbars gap 1 lw 1
set boxwidth 0.8
set yrange [0:*]
set grid ytics
set xtics rotate by -30
set arrow from graph 0, first 1 to graph 1, first 1 nohead dt 2
unset key
plot data using 2:3:4:xtic(1)
