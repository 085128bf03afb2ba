# bench/peers/plot.gp - with the library, over each of the others; logarithmic, 1 is equal.
set terminal pngcairo size 1400,560
set output out
set datafile missing "?"
set ylabel "throughput, shim / other"
set style data histograms
set style fill solid 0.6
set style histogram clustered gap 1
set boxwidth 0.9
set logscale y 2
set grid ytics
set xtics rotate by -40
set key outside top horizontal
set arrow from graph 0, first 1 to graph 1, first 1 nohead dt 2
plot for [i=2:columns] data using i:xtic(1) title columnheader(i)
